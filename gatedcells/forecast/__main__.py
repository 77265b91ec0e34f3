"""``torchrun --nproc-per-node N -m gatedcells.forecast ...``: the same command on N processes."""

from gatedcells.forecast.cli import forecast
from gatedcells.forecast.distributed import joined

if __name__ == "__main__":
    with joined():
        forecast(prog_name="gatedcells forecast")
