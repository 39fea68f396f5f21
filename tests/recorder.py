"""Stands in for functions that take long, and keeps what they were called with."""

import inspect


class Recorder:
    """The calls of what it stands in for: (name, arguments by name, defaults included)."""

    def __init__(self, monkeypatch):
        self.monkeypatch, self.calls = monkeypatch, []

    def stand_in(self, place, name: str, answer=None):
        """In place of place.name; answer: what is returned, or a function of the arguments."""
        signature = inspect.signature(getattr(place, name))
        rest = [key for key, one in signature.parameters.items() if one.kind is one.VAR_KEYWORD]

        def recorded(*args, **how):
            # a call that the real function would refuse is refused
            given = signature.bind(*args, **how)
            given.apply_defaults()
            given = dict(given.arguments)
            for key in rest:
                given |= given.pop(key)
            self.calls.append((name, given))
            return answer(**given) if callable(answer) else answer

        recorded.__name__ = name
        self.monkeypatch.setattr(place, name, recorded)

    def of(self, name: str) -> list[dict]:
        return [given for called, given in self.calls if called == name]

    def one(self, name: str) -> dict:
        (given,) = self.of(name)
        return given
