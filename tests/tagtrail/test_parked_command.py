"""`tagtrail projections` shows a parked key, keeps it parked while its fold fails, and lets it go on after that."""

from click.testing import CliRunner

from tagtrail.cli.main import cli
from tests.api import Registry
from tests.feed.running import projecting
from tests.postgres import Database
from tests.projections.making import broken_fold
from tests.projections.test_parking import BAD, parked_now


def test_a_parked_key_is_shown_and_goes_on_by_command_once_its_fold_is_mended(
    registry: Registry, database: Database
) -> None:
    """The exit status is 1 as long as the fold fails; `status` names the key, its position and the problem."""

    def ask(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["projections", *arguments, "--database", database.app_url])
        return done.exit_code, done.output

    with broken_fold("raises"), projecting(database.app_url):
        registry.push(BAD, "boom", b"1")
        (parked,) = parked_now(database)
        stands = f"{BAD} in {parked.build}"
        assert f"PARKED: {stands} from position {parked.position} (TagMoved): KeyError" in ask("status")[1]
        status, said = ask("replay-parked")
        assert (status, said.startswith(f"{stands}: 0 events folded, stays parked: KeyError")) == (1, True)
    assert ask("replay-parked") == (0, f"{stands}: 1 events folded, goes on\n")
    assert ask("replay-parked") == (0, "")
    assert "PARKED" not in ask("status")[1]
    registry.rooms.reader._tail = False
    assert registry.get(f"/v2/{BAD}/tags/list").get_json()["tags"] == ["boom"]
