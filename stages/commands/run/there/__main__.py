"""`python -m stages.commands.run.there <job.json>`: what the program that begins a job runs."""

import sys

from stages.commands.run import there

sys.exit(there.main(sys.argv[1]))
