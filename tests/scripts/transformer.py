"""A transformer encoder that reverses sequences of digits."""

import math

import torch
from torch import nn


class PositionalEncoding(nn.Module):
    def __init__(self, width, length):
        super().__init__()
        position = torch.arange(length).unsqueeze(1).float()
        rate = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
        pe = torch.zeros(length, width)
        pe[:, 0::2] = torch.sin(position * rate)
        pe[:, 1::2] = torch.cos(position * rate)
        self.register_buffer("pe", pe)

    def forward(self, x):
        return x + self.pe[: x.size(1)]


class Reverser(nn.Module):
    def __init__(self, digits=6, width=32, length=6):
        super().__init__()
        self.embedding = nn.Embedding(digits, width)
        self.positions = PositionalEncoding(width, length)
        layer = nn.TransformerEncoderLayer(width, nhead=4, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False)
        self.head = nn.Linear(width, digits)

    def forward(self, x):
        return self.head(self.encoder(self.positions(self.embedding(x))))


def main(seed=0):
    torch.manual_seed(seed)
    model = Reverser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    criterion = nn.CrossEntropyLoss()
    history = []
    for step in range(120):
        x = torch.randint(0, 6, (32, 6))
        y = x.flip(1)
        logits = model(x)
        loss = criterion(logits.transpose(1, 2), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
        if step % 20 == 0:
            accuracy = (logits.argmax(-1) == y).float().mean()
            print(f"step {step}: loss {loss.item():.4f}, accuracy {accuracy:.3f}")
    return history


if __name__ == "__main__":
    main()
