"""What this machine is, and what its measured numbers decide."""

from groundup.machine.measure import choose_dtype, measure_dtypes
from groundup.machine.probe import Gpu, Machine, probe

__all__ = ["Gpu", "Machine", "choose_dtype", "measure_dtypes", "probe"]
