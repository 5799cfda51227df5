# SPDX-License-Identifier: Apache-2.0
"""Calls to AWS: one request, one answer or one classified error. The only module that imports the SDK.

Rules:

- It is botocore, which boto3 only wraps: the same chain of credentials and the same client, for less time at
  start and 3 MiB less memory.
- Nothing is retried, but for one fresh login a fetch where AWS refuses who asks or what was asked for. A
  fresh login reads everything anew: files, token, role. A refused probe is not worth one.
- One fetch has one deadline, shared by all its calls. A call that began before it ends at most a timeout
  later, since the SDK fixes its timeouts when a client is made.
- Trouble with finding credentials is unavailable, never denied.
- No message holds what AWS wrote. Classes come from types and codes (agent.providers.aws_errors).
"""

import time
from collections.abc import Mapping
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, Final, Literal

import botocore.session
from botocore import exceptions, xform_name
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError

from agent.errors import DeniedError, RefreshError, UnavailableError
from agent.providers.aws_errors import Refusal, RejectedLoginError, classified
from agent.providers.base import IDLE_LIMIT_SECONDS, causes
from agent.sources.aws import AwsSource

_FOREIGN: Final = "AWS did not answer, something else did; check endpoint and proxies"
_SESSION_NAME: Final = "keyferry"  # what CloudTrail shows of an assumed role

# What every answer of theirs has: a page that something else answers with is an empty answer to the SDK.
_MARKS: Final = {"secretsmanager": "ARN", "kms": "KeyId"}

# What goes wrong before AWS is asked for the key: no credentials, or none that can be read.
_NO_CREDENTIALS: Final = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.MetadataRetrievalError,
    exceptions.NoAuthTokenError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
    exceptions.InvalidConfigError,
    exceptions.ConfigNotFound,
    exceptions.ConfigParseError,
)


class AwsSession:
    """Calls one AWS service: each fetch is one ``begin`` and its ``call``s."""

    def __init__(self, source: AwsSource, service: Literal["secretsmanager", "kms"], timeout: float) -> None:
        """Keep whom to ask; ``timeout`` seconds bound one call. Nothing is contacted yet."""
        self._source = source
        self._service: Final = service
        self._timeout = timeout
        # Any: botocore makes its clients' classes at run time.
        self._client: Any = None
        self._fresh = False
        self._deadline = 0.0
        self._last_used = 0.0

    def begin(self) -> None:
        """Start the clock of one fetch."""
        now = time.monotonic()
        self._deadline = now + self._timeout
        self._fresh = False
        if now - self._last_used > IDLE_LIMIT_SECONDS:
            self.close()

    def call(
        self, operation: str, thing: str, parameters: Mapping[str, object], *, probe: bool = False
    ) -> Mapping[str, Any]:
        """Return AWS's answer to ``operation``, such as ``GetSecretValue``, else raise ``RefreshError``.

        ``thing`` is what it is asked about, for messages.
        """
        try:
            return self._call(operation, thing, parameters)
        except RejectedLoginError:
            if self._fresh:
                raise
        except DeniedError:
            if self._fresh or probe:
                raise
        self._log_out()
        return self._call(operation, thing, parameters)

    def close(self) -> None:
        """Drop the connections; the next call makes new ones."""
        if self._client is not None:
            self._client.close()

    def _call(self, operation: str, thing: str, parameters: Mapping[str, object]) -> Mapping[str, Any]:
        if time.monotonic() >= self._deadline:
            raise UnavailableError(self._late())
        try:
            client = self._client = self._client or self._log_in()
            answer: Mapping[str, Any] = getattr(client, xform_name(operation))(**parameters)
        except exceptions.ClientError as error:
            failure = classified(self._refusal(error, operation, thing))
        except (exceptions.BotoCoreError, ResponseParserError, OSError) as error:
            failure = self._trouble(error, operation)
        else:
            self._last_used = time.monotonic()
            if _MARKS[self._service] in answer:
                return answer
            failure = UnavailableError(_FOREIGN)
        if isinstance(failure, RejectedLoginError):
            self._log_out()
        # Not chained: AWS's words, and the SDK's about a file, may quote anything.
        raise failure

    def _log_out(self) -> None:
        """Forget the client and whatever credentials it has; the next call logs in."""
        self.close()
        self._client = None

    def _log_in(self) -> Any:  # noqa: ANN401 - see __init__
        """Return a client, with everything that it needs to know who asks read anew."""
        source = self._source
        self._fresh = True
        session = botocore.session.Session(profile=source.profile)
        session.register_component("data_loader", _models())
        # The session's default, so that it also holds for the calls to STS that a login makes.
        session.set_default_client_config(
            Config(
                connect_timeout=self._timeout,
                read_timeout=self._timeout,
                retries={"mode": "standard", "total_max_attempts": 1},
            )
        )
        if source.role_arn is not None:
            _assume(session, source.role_arn, source.external_id, source.region)
        return session.create_client(self._service, region_name=source.region, endpoint_url=source.endpoint)

    def _refusal(self, error: exceptions.ClientError, operation: str, thing: str) -> Refusal:
        login = error.operation_name != operation
        action = f"{'sts' if login else self._service}:{error.operation_name}"
        metadata = error.response.get("ResponseMetadata", {})
        retry_after = str(metadata.get("HTTPHeaders", {}).get("retry-after", ""))
        return Refusal(
            action=action,
            thing=thing,
            code=str(error.response.get("Error", {}).get("Code", "")),
            status=metadata.get("HTTPStatusCode", 0),
            retry_after_seconds=float(retry_after) if retry_after.isdecimal() else None,
            login=login,
        )

    def _trouble(self, error: Exception, operation: str) -> RefreshError:
        """Return what a call that brought no answer failed of."""
        kind = type(error).__name__
        match error:
            case exceptions.ConnectTimeoutError() | exceptions.ReadTimeoutError():
                wrong = self._late()
            case exceptions.SSLError():
                wrong = "AWS failed the TLS handshake; check AWS_CA_BUNDLE and the endpoint"
            case exceptions.HTTPClientError() | exceptions.ConnectionError():
                wrong = f"AWS cannot be reached{_reason(error)}; check region and endpoint"
            case ResponseParserError():
                wrong = _FOREIGN
            case OSError():
                # Its name may be a token in the place of a path.
                cure = "check AWS_WEB_IDENTITY_TOKEN_FILE and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
                return RejectedLoginError(f"cannot read a file with credentials: {error.strerror}; {cure}")
            case exceptions.ParamValidationError():
                wrong = (
                    f"AWS's SDK sends no {operation}: a setting, or the token in a file, is not of its form"
                )
            case exceptions.ProfileNotFound():
                cure = "correct profile or AWS_PROFILE, or mount the file that has it"
                return RejectedLoginError(f"found no such AWS profile ({kind}); {cure}")
            case _ if isinstance(error, _NO_CREDENTIALS):
                cure = "give the pod a role (IRSA, Pod Identity), or set profile"
                return RejectedLoginError(f"found no usable AWS credentials ({kind}); {cure}")
            case _:
                wrong = f"unexpected {kind} in AWS's SDK on {operation}"
        return UnavailableError(wrong)

    def _late(self) -> str:
        return f"AWS gave no complete answer within {self._timeout:g} s"


@cache
def _models() -> Loader:
    """Return what the SDK knows of AWS: reading it is four fifths of the making of a client."""
    return Loader()


def _assume(
    session: botocore.session.Session, role_arn: str, external_id: str | None, region: str | None
) -> None:
    """Let ``session`` act as the role, and assume it again whenever its credentials expire."""
    chain = session.get_component("credential_provider")
    source = chain.load_credentials()
    if source is None:
        raise exceptions.NoCredentialsError
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=partial(session.create_client, region_name=region),
        source_credentials=source,
        role_arn=role_arn,
        extra_args={"RoleSessionName": _SESSION_NAME} | ({"ExternalId": external_id} if external_id else {}),
    )
    role = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    session.register_component("credential_provider", SimpleNamespace(load_credentials=lambda: role))


def _reason(error: BaseException) -> str:
    """Return the operating system's word on a failed connection."""
    words = [cause.strerror for cause in causes(error) if isinstance(cause, OSError) and cause.strerror]
    return f": {words[0]}" if words else ""
