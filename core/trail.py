"""One request's way through the audit log: recorded before it is served, and its answer before it leaves.

A request that is not admitted has one record, with the reason; any other has two. Where there are no devices, nothing is
done here, and nothing is computed for it. How records look and where they go is `core/audit.py`.
"""

from conclave.core.audit import Auditor
from conclave.core.audit_records import Subject
from conclave.core.contract import Request
from conclave.core.errors import RequestError
from conclave.core.outcomes import Outcome
from conclave.core.pipeline import Pipeline, Plan
from conclave.core.services import Services
from conclave.core.tokens import TokenRecord


class Trail:
    """The records of one request.

    Args:
        auditor: this node's audit devices.
        pipeline: admits the request.
        plan, request, services: the request, in its transaction.
    """

    __slots__ = ("_auditor", "_is_admitted", "_pipeline", "_plan", "_request", "_services", "_subject")

    def __init__(self, auditor: Auditor, pipeline: Pipeline, plan: Plan, request: Request, services: Services) -> None:
        self._auditor = auditor
        self._pipeline = pipeline
        self._plan = plan
        self._request = request
        self._services = services
        self._subject: Subject | None = None
        self._is_admitted = False

    def admit(self) -> TokenRecord | None:
        """Admit the request, record whether it was, and return its token's record.

        Raises:
            RequestError: it was not admitted, or could not be recorded.
            NeedsLeader: the leader has to admit it; nothing was recorded.
        """
        try:
            token = self._pipeline.admit(self._plan, self._request, self._services)
        except RequestError as error:
            if not self._auditor.is_idle:
                known = self._pipeline.known_token(self._plan, self._request, self._services)
                self._auditor.request(self._subject_of(known), error)
            raise
        self._is_admitted = True
        if not self._auditor.is_idle:
            self._subject = self._subject_of(token)
            self._auditor.request(self._subject)
        return token

    def answered(self, outcome: Outcome) -> Outcome:
        """Record an answer that is about to leave, and return what may leave: it, or that it could not be recorded."""
        if self._auditor.is_idle or not self._is_admitted:
            return outcome
        try:
            self._auditor.response(self._subject or self._subject_of(None), outcome)
        except RequestError as error:
            return error
        return outcome

    def _subject_of(self, token: TokenRecord | None) -> Subject:
        return self._pipeline.subject(self._plan, self._request, self._services, token)
