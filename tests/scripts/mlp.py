"""A multilayer perceptron that tells two spirals apart."""

import math

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def spirals(n):
    t = torch.rand(n) * 2 + 0.3
    label = (torch.rand(n) < 0.5).long()
    angle = t * math.pi + label.float() * math.pi
    points = torch.stack([t * torch.cos(angle), t * torch.sin(angle)], dim=1)
    return points + 0.05 * torch.randn(n, 2), label


def main(seed=0):
    torch.manual_seed(seed)
    x, y = spirals(400)
    loader = DataLoader(TensorDataset(x, y), batch_size=50, shuffle=True)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-2, epochs=30, steps_per_epoch=len(loader))
    criterion = nn.CrossEntropyLoss()
    history = []
    for epoch in range(30):
        total, correct = 0.0, 0
        model.train()
        for inputs, labels in loader:
            optimizer.zero_grad()
            logits = model(inputs)
            loss = criterion(logits, labels)
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.item() * inputs.size(0)
            correct += (logits.argmax(dim=1) == labels).sum().item()
        history.append(total / len(x))
        print(f"epoch {epoch}: loss {history[-1]:.4f}, accuracy {correct / len(x):.3f}")
    return history


if __name__ == "__main__":
    main()
