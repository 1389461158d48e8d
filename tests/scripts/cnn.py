"""A convolutional network that finds out whether a bar in an image is upright, lies, or is a diagonal."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, kernel_size=3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(0.1)
        self.fc1 = nn.Linear(16 * 3 * 3, 32)
        self.fc2 = nn.Linear(32, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = x.view(x.size(0), -1)
        x = self.drop(F.relu(self.fc1(x)))
        return self.fc2(x)


def images(n):
    x = 0.3 * torch.randn(n, 1, 12, 12)
    y = torch.arange(n) % 3
    for i in range(n):
        k = 2 + (7 * i) % 8
        if y[i] == 0:
            x[i, 0, :, k] += 1.0
        elif y[i] == 1:
            x[i, 0, k, :] += 1.0
        else:
            for j in range(12):
                x[i, 0, j, (j + k) % 12] += 1.0
    return x, y


def main(seed=0):
    torch.manual_seed(seed)
    x, y = images(120)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    history = []
    for epoch in range(24):
        net.train()
        losses = []
        for i in range(0, len(x), 30):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[i : i + 30]), y[i : i + 30])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        history.append(sum(losses) / len(losses))
        print(f"epoch {epoch}: loss {history[-1]:.4f}")
    net.eval()
    with torch.no_grad():
        accuracy = (net(x).argmax(1) == y).float().mean().item()
    print(f"accuracy {accuracy:.3f}")
    return history


if __name__ == "__main__":
    main()
