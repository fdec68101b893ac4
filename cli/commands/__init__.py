"""The commands, a file for each group; `conclave.cli.REGISTRY` names them, and nothing else imports them."""
