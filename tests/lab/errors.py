"""The lab's own error: two sentences, what is wrong and what to do about it."""


class LabError(Exception):
    """Something a person can act on; the command prints it without a traceback."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}".strip())
        self.problem = problem
        self.remedy = remedy
