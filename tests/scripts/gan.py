"""A generative adversarial network that learns a normal distribution. The history is the distance of its mean."""

import torch
from torch import nn, optim


def main(seed=0):
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    discriminator = nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    for layer in list(generator) + list(discriminator):
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.3)
            nn.init.zeros_(layer.bias)
    criterion = nn.BCEWithLogitsLoss()
    d_optimizer = optim.Adam(discriminator.parameters(), lr=5e-3, betas=(0.5, 0.999))
    g_optimizer = optim.Adam(generator.parameters(), lr=5e-3, betas=(0.5, 0.999))
    history = []
    for step in range(400):
        real = 3.0 + 0.5 * torch.randn(64, 1)
        fake = generator(torch.randn(64, 4))

        d_optimizer.zero_grad()
        d_loss = criterion(discriminator(real), torch.ones(64, 1))
        d_loss = d_loss + criterion(discriminator(fake.detach()), torch.zeros(64, 1))
        d_loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        g_loss = criterion(discriminator(fake), torch.ones(64, 1))
        g_loss.backward()
        g_optimizer.step()

        if step % 20 == 19:
            with torch.no_grad():
                history.append(abs(generator(torch.randn(500, 4)).mean().item() - 3.0))
            print(f"step {step}: d {d_loss.item():.3f}, g {g_loss.item():.3f}, mean off by {history[-1]:.3f}")
    return [history[0], sum(history[-5:]) / 5]


if __name__ == "__main__":
    main()
