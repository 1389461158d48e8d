"""Nonlinear regression by L-BFGS: the rate, frequency and phase of a damped wave."""

import torch


def main(seed=0):
    torch.manual_seed(seed)
    t = torch.linspace(0, 4, 80)
    y = 2.0 * torch.exp(-0.5 * t) * torch.sin(3.0 * t + 0.4) + 0.02 * torch.randn(80)
    params = torch.tensor([1.0, 0.3, 2.6, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([params], lr=1.0, max_iter=10, line_search_fn="strong_wolfe")
    history = []

    def closure():
        optimizer.zero_grad()
        amplitude, decay, frequency, phase = params
        predicted = amplitude * torch.exp(-decay * t) * torch.sin(frequency * t + phase)
        loss = torch.mean((predicted - y) ** 2)
        loss.backward()
        return loss

    for _ in range(8):
        history.append(optimizer.step(closure).item())
    history.append(closure().item())
    print(" ".join(f"{loss:.6f}" for loss in history))
    print("parameters", [round(p, 2) for p in params.tolist()])
    return history


if __name__ == "__main__":
    main()
