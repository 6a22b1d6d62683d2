"""Makes every Python process of a test print the stacks of all its threads on SIGVTALRM, which nothing else here uses."""

import faulthandler
import signal

faulthandler.register(signal.SIGVTALRM, all_threads=True, chain=False)
