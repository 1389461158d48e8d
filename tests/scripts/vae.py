"""A variational autoencoder of points on a ring."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class VAE(nn.Module):
    def __init__(self, latent=2):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, 32), nn.Tanh(), nn.Linear(32, 8))

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, dim=-1)
        return self.decoder(self.reparameterize(mu, logvar)), mu, logvar


def loss_function(recon, x, mu, logvar):
    reconstruction = F.mse_loss(recon, x, reduction="sum")
    divergence = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return (reconstruction + 0.05 * divergence) / len(x)


def main(seed=0):
    torch.manual_seed(seed)
    angle = torch.rand(256, 1) * 2 * math.pi
    x = torch.sin(angle + torch.arange(8).float() * math.pi / 4) + 0.05 * torch.randn(256, 8)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for epoch in range(40):
        order = torch.randperm(len(x))
        total = 0.0
        for batch in order.split(64):
            optimizer.zero_grad(set_to_none=True)
            recon, mu, logvar = model(x[batch])
            loss = loss_function(recon, x[batch], mu, logvar)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        history.append(total / len(x))
        if epoch % 10 == 0:
            print(f"epoch {epoch}: loss {history[-1]:.4f}")
    return history


if __name__ == "__main__":
    main()
