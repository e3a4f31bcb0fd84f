"""``coe samda`` in this process."""

from click.testing import CliRunner

from cluster.cli import coe


def run(*arguments, raises=None):
    """What comes of a command, which must end well or raise ``raises``."""
    result = CliRunner().invoke(coe, ["samda", *map(str, arguments)], catch_exceptions=raises is not None)
    if raises is None:
        assert result.exit_code == 0, result.output
    else:
        assert isinstance(result.exception, raises), result.output
    return result
