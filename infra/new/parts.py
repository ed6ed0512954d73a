"""Adds parts with `cairn add` to a new project, and writes their rules."""

import re

PARTS = [
    ["aggregate", "gift-card"],
    ["command", "create-gift-card", "--aggregate", "gift-card", "--route", "POST /gift-cards/{giftCardId}"],
    ["projection", "gift-cards", "--of", "gift-card", "--key", "giftCardId"],
    ["reaction", "issue-gift-card", "--on", "OrderAccepted", "--aggregate", "gift-card"],
    # Its events and its commands are of one aggregate.
    ["reaction", "copy-gift-card", "--on", "GiftCardCreated", "--aggregate", "gift-card"],
    ["step", "wrap-order", "--saga", "intake", "--after", "accept-order"],
]
# The file of a rule, the code that `cairn add` writes, and the rule. The tests of the parts fail without it.
RULES = [
    ("shared/shop/src/gift_card.rs", r"Ok\(vec!\[\]\)", "Ok(vec![Event::Created {}])"),
    # They give no command: the second would follow from its own.
    ("functions/reactions/issue-gift-card/tests/issue-gift-card.rs", r"\.is_some\(\)", ".is_none()"),
    ("functions/reactions/copy-gift-card/tests/copy-gift-card.rs", r"\.is_some\(\)", ".is_none()"),
    (
        "functions/saga/wrap-order/src/lib.rs",
        r'Err\(StepFailure::Permanent\(\s*"[^"]*"\.to_owned\(\),?\s*\)\)',
        "Ok(StepOutcome::done([]))",
    ),
]


def add(cairn, project):
    """Adds the parts to a project. `cairn` runs the tool in its folder."""
    for part in PARTS:
        cairn("add", *part)
    for name, code, rule in RULES:
        file = project / name
        text, count = re.subn(code, rule, file.read_text())
        if count == 0:
            raise RuntimeError(f"{name}: no code for its rule; correct infra/new/parts.py")
        file.write_text(text)
