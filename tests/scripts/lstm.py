"""A language model of characters."""

import torch
from torch import nn

TEXT = """the cat sat on the mat and the dog sat on the log and the frog sat on the cat and the cat ran to the dog
and the dog ran to the frog and the frog ran to the mat and all of them sat on the mat and sang to the cat
"""


class CharModel(nn.Module):
    def __init__(self, vocabulary, hidden=48):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 16)
        self.lstm = nn.LSTM(16, hidden, batch_first=True)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, tokens, state=None):
        out, state = self.lstm(self.embedding(tokens), state)
        return self.head(out), state


def main(seed=0):
    torch.manual_seed(seed)
    chars = sorted(set(TEXT))
    index = {c: i for i, c in enumerate(chars)}
    data = torch.tensor([index[c] for c in TEXT], dtype=torch.long)
    model = CharModel(len(chars))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    criterion = nn.CrossEntropyLoss()
    length, batch = 24, 8
    history = []
    for step in range(80):
        starts = torch.randint(0, len(data) - length - 1, (batch,))
        inputs = torch.stack([data[s : s + length] for s in starts])
        targets = torch.stack([data[s + 1 : s + length + 1] for s in starts])
        optimizer.zero_grad()
        logits, _ = model(inputs)
        loss = criterion(logits.reshape(-1, len(chars)), targets.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(loss.item())
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    with torch.no_grad():
        token, state, written = data[:1].view(1, 1), None, []
        for _ in range(30):
            logits, state = model(token, state)
            token = logits[:, -1].argmax(dim=-1, keepdim=True)
            written.append(chars[token.item()])
    print("".join(written))
    return history


if __name__ == "__main__":
    main()
