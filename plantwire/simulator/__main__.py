"""`python -m plantwire.simulator`, the same as `plantwire simulate`."""

from plantwire.simulator.cli import app

if __name__ == "__main__":
    app(prog_name="plantwire simulate")
