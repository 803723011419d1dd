"""The real gateway process, whose workers are `fake_worker`."""

from trimtab.service import gateway
from trimtab.spec import processes

if __name__ == "__main__":
    processes.MODULES["worker"] = "fake_worker"
    gateway.main()
