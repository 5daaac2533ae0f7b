"""The one check of a ledger that all tests use."""

from consumer.ledger import Ledger


def assert_balances(ledger: Ledger) -> None:
    """Say both equations of the design out loud, so that a failure shows the numbers."""
    account = ledger.to_json()
    counts = [ledger.decoded, ledger.not_needed, ledger.undecodable, ledger.inferred, ledger.not_sampled]
    assert min([*counts, *ledger.dropped.values()]) >= 0, account
    assert ledger.decoded == ledger.inferred + ledger.not_sampled + sum(ledger.dropped.values()), account
    if ledger.packets is None:
        assert ledger.packets_reason, account
    else:
        assert ledger.packets == ledger.decoded + ledger.not_needed + ledger.undecodable, account
        assert "packets_reason" not in account
    assert ledger.balances
