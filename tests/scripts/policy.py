"""Policy gradients (REINFORCE) in a corridor: walk to the right end. The history is minus the return."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class Corridor:
    """Five places; each step costs 0.1, the right end pays 1 and ends the episode, as do twenty steps."""

    def reset(self):
        self.place, self.time = 0, 0
        return self.observe()

    def observe(self):
        state = torch.zeros(5)
        state[self.place] = 1.0
        return state

    def step(self, action):
        self.time += 1
        self.place = max(0, self.place + (1 if action == 1 else -1))
        done = self.place == 4
        return self.observe(), (1.0 if done else -0.1), done or self.time == 20


def main(seed=0):
    torch.manual_seed(seed)
    env = Corridor()
    policy = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-2)
    history = []
    baseline = 0.0
    for episode in range(100):
        state, done = env.reset(), False
        log_probs, rewards = [], []
        while not done:
            probs = F.softmax(policy(state), dim=-1)
            action = torch.multinomial(probs, num_samples=1)
            log_probs.append(torch.log(probs[action]))
            state, reward, done = env.step(action.item())
            rewards.append(reward)
        returns, total = [], 0.0
        for reward in reversed(rewards):
            total = reward + 0.95 * total
            returns.insert(0, total)
        advantage = torch.tensor(returns) - baseline
        baseline = 0.9 * baseline + 0.1 * returns[0]
        loss = -(torch.cat(log_probs) * advantage).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(-sum(rewards))
        if episode % 20 == 0:
            print(f"episode {episode}: return {sum(rewards):.2f}")
    return [sum(history[:10]) / 10, sum(history[-10:]) / 10]


if __name__ == "__main__":
    main()
