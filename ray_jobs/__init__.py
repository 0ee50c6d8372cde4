"""Commands. The only package that knows Ray, ranks, URIs and the command line."""

import os
import sys
from types import TracebackType

# Ray reads these once, when it is first imported; so commands import it only through this package.
# A private cluster's ports listen on every interface, and who reaches them may run code: it always wants a token
# (RAY_AUTH_MODE=disabled is the user's own word). A cluster that this process joins has decided for itself.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Threads that wait for each other by spinning starve the loader's threads: measured ten times slower on two busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Without it the dashboard answers of no run of Ray Train. The driver decides: the run's controller takes it from there.
os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
# Tune prints a box on each search, whatever its verbosity; the search's own lines say it shorter.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")


def _say_interrupted(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """After Ctrl-C while a command still imports what it needs; settings/exit_status.py says what comes later."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _say_interrupted
