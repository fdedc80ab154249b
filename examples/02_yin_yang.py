"""Yin-Yang in plain PyTorch, without the trainer: two spiking layers, the earliest output spike is the answer.

python examples/02_yin_yang.py
"""

import argparse

import torch

from eventnet import LIF, data, initial, losses


def main(quick: bool = False) -> float:
    """Train 5-200-3; returns the accuracy on the validation points."""
    torch.manual_seed(0)
    splits = data.load("yinyang")
    hidden, output = LIF(5, 200), LIF(200, 3)
    initial.normal_(hidden.weight, 1.5, 0.78)
    initial.normal_(output.weight, 0.93, 0.1)
    # spikes that barely reach threshold have large gradients: a short memory of their size (beta2) copes with them
    optimizer = torch.optim.Adam([hidden.weight, output.weight], lr=3e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95)
    accuracy = 0.0
    for epoch in range(4 if quick else 40):
        for index in torch.randperm(len(splits.train)).split(32):
            events, labels = splits.train.__getitems__(index.tolist())
            first = output(hidden(events)).first_times()
            loss = losses.first_spike_cross_entropy(first, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            guess = losses.predict_first_spike(output(hidden(splits.validation.events)).first_times())
        accuracy = (guess == splits.validation.labels).float().mean().item()
        print(f"epoch {epoch + 1}: validation accuracy {100 * accuracy:.1f} %")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="four epochs instead of forty")
    main(**vars(parser.parse_args()))
