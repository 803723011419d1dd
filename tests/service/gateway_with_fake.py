"""The real gateway process, whose workers are `fake_worker`. FAKE_FILES limits how many files it may open."""

import os
import resource

from trimtab.service import gateway
from trimtab.spec import processes

if __name__ == "__main__":
    processes.MODULES["worker"] = "fake_worker"
    if files := os.environ.get("FAKE_FILES"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
    gateway.main()
