"""The tasks: what is done with a method to measure it, one module each."""

from tokenmark.tasks.base import Task
from tokenmark.tasks.classification import CLASSIFICATION
from tokenmark.tasks.generation import GENERATION
from tokenmark.tasks.reconstruction import RECONSTRUCTION
from tokenmark.tasks.sampling import SAMPLING
from tokenmark.tasks.structure import STRUCTURE
from tokenmark.tasks.tokenization import TOKENIZATION

TASKS: dict[str, Task] = {
    task.name: task for task in (RECONSTRUCTION, GENERATION, CLASSIFICATION, TOKENIZATION, SAMPLING, STRUCTURE)
}

__all__ = ["TASKS", "Task"]
