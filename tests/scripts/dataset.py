"""A data set of one's own, read by worker processes, with a train and a validation part."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, random_split


class Waves(Dataset):
    """Pieces of noisy waves, with their frequency."""

    def __init__(self, n, length=16):
        self.noise = torch.randn(n, length) * 0.05
        self.frequency = 0.5 + torch.rand(n)
        self.time = torch.linspace(0, 4, length)

    def __len__(self):
        return len(self.frequency)

    def __getitem__(self, i):
        wave = torch.sin(self.frequency[i] * self.time) + self.noise[i]
        return {"wave": wave, "frequency": self.frequency[i], "name": f"wave {i}"}


def main(seed=0):
    torch.manual_seed(seed)
    train, valid = random_split(Waves(300), [0.8, 0.2])
    train_loader = DataLoader(train, batch_size=32, shuffle=True, num_workers=2, pin_memory=False, drop_last=True)
    valid_loader = DataLoader(valid, batch_size=60, num_workers=1)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 1))
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    criterion = nn.MSELoss()
    history = []
    for epoch in range(10):
        for batch in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(batch["wave"]).squeeze(1), batch["frequency"])
            loss.backward()
            optimizer.step()
        scheduler.step()
        with torch.no_grad():
            for batch in valid_loader:
                assert len(batch["name"]) == 60
                history.append(criterion(model(batch["wave"]).squeeze(1), batch["frequency"]).item())
        print(f"epoch {epoch}: validation loss {history[-1]:.5f}")
    return history


if __name__ == "__main__":
    main()
