"""A derivative of one's own: a step function that lets gradients straight through, in a network of signs."""

import torch
from torch import nn


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output * (x.abs() <= 1).float()


class BinaryNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 32)
        self.second = nn.Linear(32, 1)

    def forward(self, x):
        return self.second(Sign.apply(self.first(x))).squeeze(-1)


def main(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(256, 6)
    y = x[:, 0] * 0.5 + (x[:, 1] > 0).float() - (x[:, 2] * x[:, 3] > 0).float()
    model = BinaryNet()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=5)
    loss_fn = nn.MSELoss()
    history = []
    for epoch in range(80):
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step(loss.item())
        history.append(loss.item())
        if epoch % 20 == 0:
            print(f"epoch {epoch}: loss {loss.item():.4f}, lr {optimizer.param_groups[0]['lr']:.4f}")
    return history


if __name__ == "__main__":
    main()
