"""With several event loops the broker does what it does with one: the incidents of other suites, on three."""
import subprocess, sys
import conformance, exactly_once, kill9, rebalances
from driving import everywhere, shared, test

LOOPS = {"martlet.event.loops": "3"}
KILLS = 12


@test
def recorded_conversations_are_held_alike():
    player = shared("conformance", "run.py")
    files = [f"@{shared('conformance', 'subsets', name + '.txt')}" for name in conformance.SUBSETS]
    listed = subprocess.run([sys.executable, player, "--list", *files], capture_output=True, text=True, check=True).stdout
    # those that need settings of their own are held once, by the suite `conformance`
    names = [line.split("  ")[0] for line in listed.splitlines() if not line.partition("  ")[2].strip()]
    assert len(names) > 250, f"only {len(names)} conversations"
    rows = list(conformance.held(player, names, "", {**conformance.SETTINGS, **LOOPS}))
    assert {name for _, name, _ in rows} == set(names), set(names) - {name for _, name, _ in rows}
    excepted = conformance.exceptions()
    failed = [f"{name}: {text}" for kind, name, text in rows if kind != "ok" and name not in excepted]
    assert not failed, "\n     ".join(failed[:5])


@test
def what_was_acknowledged_survives_kills():
    with everywhere(LOOPS):
        kill9.kill_again_and_again(KILLS)


@test
def four_clients_share_one_group_and_leave_it_one_by_one():
    with everywhere(LOOPS):
        rebalances.four_clients_share_one_group_and_leave_it_one_by_one()


@test
def a_group_lives_on_through_restarts_and_kills_of_its_broker():
    with everywhere(LOOPS):
        rebalances.a_group_lives_on_through_restarts_and_kills_of_its_broker()


@test
def transactions_are_exactly_once_whoever_of_their_workers_is_killed():
    with everywhere(LOOPS):
        exactly_once.confluent_transforms_exactly_once_whoever_of_its_workers_is_killed()
