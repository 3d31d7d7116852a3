"""The sets that values and arguments may lie in, and the transforms that reach them from all reals."""

from torch.distributions.constraints import *  # noqa: F403
from torch.distributions.constraints import Constraint as Constraint
