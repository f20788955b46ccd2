"""A multi-layer perceptron in numpy. Its metrics are lines of metrics.jsonl; killed, it goes on where it was."""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from dataset import load

parser = argparse.ArgumentParser()
parser.add_argument("--optim.lr", dest="lr", type=float, default=0.1)
parser.add_argument("--optim.momentum", dest="momentum", type=float, default=0.0)
parser.add_argument("--optim.batch", dest="batch", type=int, default=32)
parser.add_argument("--optim.epochs", dest="epochs", type=int, default=15)
parser.add_argument("--model.hidden", dest="hidden", type=int, default=16)
parser.add_argument("--model.init_scale", dest="init_scale", type=float, default=1.0)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()

output = Path(os.environ.get("ESPALIER_OUTPUT_DIR", "."))
checkpoint = Path(os.environ.get("ESPALIER_CHECKPOINT_DIR", ".")) / "epoch.npz"
train_x, train_y, val_x, val_y = load(args.seed)


def new_weights():
    random = np.random.default_rng(args.seed)
    scale = args.init_scale
    first = random.normal(0.0, scale / np.sqrt(64), (64, args.hidden))
    second = random.normal(0.0, scale / np.sqrt(args.hidden), (args.hidden, 10))
    return [first, np.zeros(args.hidden), second, np.zeros(10)]


def forward(weights, x):
    hidden = np.tanh(x @ weights[0] + weights[1])
    scores = hidden @ weights[2] + weights[3]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, scores / scores.sum(axis=1, keepdims=True)


def train_epoch(weights, speeds, epoch):
    order = np.random.default_rng([args.seed, epoch]).permutation(len(train_x))  # the same order when resumed
    for start in range(0, len(order), args.batch):
        x, y = train_x[order[start : start + args.batch]], train_y[order[start : start + args.batch]]
        hidden, error = forward(weights, x)
        error[np.arange(len(y)), y] -= 1.0
        error /= len(y)
        back = (error @ weights[2].T) * (1.0 - hidden**2)
        for weight, speed, gradient in zip(
            weights, speeds, (x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)), strict=True
        ):
            speed *= args.momentum
            speed -= args.lr * gradient
            weight += speed


def scores(weights):
    result = {}
    for name, x, y in (("train", train_x, train_y), ("val", val_x, val_y)):
        chances = forward(weights, x)[1]
        result[f"{name}_loss"] = float(-np.log(chances[np.arange(len(y)), y] + 1e-12).mean())
        result[f"{name}_accuracy"] = float((chances.argmax(1) == y).mean())
    return result


first_epoch, weights = 0, new_weights()
speeds = [np.zeros_like(weight) for weight in weights]
if checkpoint.exists():
    saved = np.load(checkpoint)
    first_epoch = int(saved["epoch"]) + 1
    weights, speeds = [saved[f"w{i}"] for i in range(4)], [saved[f"s{i}"] for i in range(4)]
    print(f"going on at epoch {first_epoch}", flush=True)

with open(output / "metrics.jsonl", "w") as metrics:
    for epoch in range(first_epoch, args.epochs):
        train_epoch(weights, speeds, epoch)
        print(json.dumps({"step": epoch, **scores(weights)}), file=metrics, flush=True)
        state = {f"w{i}": w for i, w in enumerate(weights)} | {f"s{i}": s for i, s in enumerate(speeds)}
        with open(checkpoint.with_suffix(".new"), "wb") as file:
            np.savez(file, epoch=epoch, **state)
        os.replace(checkpoint.with_suffix(".new"), checkpoint)  # whole or not at all

np.savez(output / "weights.npz", *weights)
print(f"val_accuracy {scores(weights)['val_accuracy']:.4f}")
