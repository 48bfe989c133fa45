"""``python -m vcbproxy``."""

from vcbproxy.cli.main import main

main()
