import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 60
EXPECTED = dict(rules={"zero"}, module=("body", "body.0", "body.2"), causes={"frozen"}, optimizer="optimizer", at=1,
                doubt="the optimizer holds parameters that were frozen from the start: by the letter zero/frozen, but many do so on purpose",
                say="the student's body is a deepcopy of the teacher's, which had been frozen already: requires_grad=False was copied along")


def train(track, steps):
    torch.manual_seed(105)
    teacher = nn.Sequential()
    teacher.add_module("body", nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 16)))
    teacher.add_module("head", nn.Linear(16, 4))
    teacher.requires_grad_(False)
    student = copy.deepcopy(teacher)
    student.head = nn.Linear(16, 4)
    opt = torch.optim.AdamW(student.parameters(), 2e-3)
    losses = []
    with track(opt, student):
        for _ in range(steps):
            x = torch.randn(32, 10)
            loss = F.kl_div(student(x).log_softmax(1), (3 * teacher(x)).softmax(1), reduction="batchmean")
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return losses
