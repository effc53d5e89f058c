"""How a browser gets into a workspace: by a ticket, once; then by the cookie it became."""

from __future__ import annotations

from modelcloud.control.workspaces.tickets import MOST, TICKET_S, Tickets


class Clock:
    """Stands where it is put."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_ticket_becomes_one_cookie_of_its_workspace() -> None:
    tickets = Tickets(Clock())
    ticket = tickets.issue("a", token_id=7)
    cookie = tickets.redeem("a", ticket)
    assert cookie is not None
    assert cookie != ticket
    assert tickets.opened("a", cookie) == 7
    assert tickets.opened("b", cookie) is None
    assert tickets.opened("a", ticket) is None
    assert tickets.redeem("a", ticket) is None, "once"


def test_a_ticket_is_for_its_workspace_and_for_a_minute() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    assert tickets.redeem("b", tickets.issue("a", 1)) is None
    late = tickets.issue("a", 1)
    clock.now = TICKET_S + 0.1
    assert tickets.redeem("a", late) is None
    assert tickets.redeem("a", "") is None
    assert tickets.opened("a", "") is None


def test_nothing_opens_what_was_forgotten() -> None:
    tickets = Tickets(Clock())
    cookie = tickets.redeem("a", tickets.issue("a", 1))
    ticket, other = tickets.issue("a", 1), tickets.redeem("b", tickets.issue("b", 2))
    assert cookie is not None
    assert other is not None
    tickets.forget("a")
    assert tickets.opened("a", cookie) is None
    assert tickets.redeem("a", ticket) is None
    assert tickets.opened("b", other) == 2


def test_only_the_newest_of_a_workspace_are_kept() -> None:
    tickets = Tickets(Clock())
    issued = [tickets.issue("a", 1) for _ in range(MOST + 1)]
    assert tickets.redeem("a", issued[0]) is None
    cookies = [tickets.redeem("a", ticket) for ticket in issued[1:]]
    assert None not in cookies
