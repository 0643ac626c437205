"""``SUITES``, by name."""

from __future__ import annotations

from growth.suites.char_gpt import CHAR_GPT
from growth.suites.cifar_mlp import CIFAR_MLP
from growth.suites.cifar_resnet import CIFAR_RESNET
from growth.suites.digits_mlp import DIGITS_MLP, DIGITS_MLP_LONGER
from growth.suites.digits_resnet import DIGITS_RESNET
from growth.task import Task

_TASKS = (DIGITS_MLP, DIGITS_MLP_LONGER, DIGITS_RESNET, CIFAR_MLP, CIFAR_RESNET, CHAR_GPT)
SUITES: dict[str, Task] = {task.name: task for task in _TASKS}
