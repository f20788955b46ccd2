"""Softmax regression; logs with plain MLflow, which continues the run that was made for the trial."""

import argparse

import mlflow
import numpy as np
from dataset import load

parser = argparse.ArgumentParser()
parser.add_argument("--optim.lr", dest="lr", type=float, default=0.1)
parser.add_argument("--optim.momentum", dest="momentum", type=float, default=0.0)
parser.add_argument("--optim.batch", dest="batch", type=int, default=32)
parser.add_argument("--optim.epochs", dest="epochs", type=int, default=15)
parser.add_argument("--l2", type=float, default=0.0)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()

train_x, train_y, val_x, val_y = load(args.seed)
random = np.random.default_rng(args.seed)
weights = np.zeros((65, 10))  # the last row is the bias
speed = np.zeros_like(weights)


def with_bias(x):
    return np.hstack([x, np.ones((len(x), 1))])


def probabilities(x):
    scores = with_bias(x) @ weights
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def loss(x, y):
    return -np.log(probabilities(x)[np.arange(len(y)), y] + 1e-12).mean()


def accuracy(x, y):
    return (probabilities(x).argmax(axis=1) == y).mean()


with mlflow.start_run():
    for epoch in range(args.epochs):
        order = random.permutation(len(train_x))
        for start in range(0, len(order), args.batch):
            rows = order[start : start + args.batch]
            error = probabilities(train_x[rows])
            error[np.arange(len(rows)), train_y[rows]] -= 1.0
            gradient = with_bias(train_x[rows]).T @ error / len(rows) + args.l2 * weights
            speed = args.momentum * speed - args.lr * gradient
            weights += speed
        metrics = {"train_loss": loss(train_x, train_y), "val_loss": loss(val_x, val_y)}
        mlflow.log_metrics(metrics | {"val_accuracy": accuracy(val_x, val_y)}, step=epoch)
    print(f"val_accuracy {accuracy(val_x, val_y):.4f}")
