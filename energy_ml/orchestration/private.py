"""What we use of Dagster that isn't its public interface, all of it here: the first place to look after an upgrade.

What belongs here: imports, each with why. What doesn't: anything else.
"""

# Which command loads the definitions: Dagster's command line is made with click.
from click import ClickException, get_current_context
from dagster._core.definitions.job_base import InMemoryJob  # a job run in this process, without a repository
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository  # … or by name
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import execute_run_iterator  # runs under ids that we choose, event by event
from dagster._core.execution.context.system import PlanOrchestrationContext  # what an executor is given, for types
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.instance.ref import InstanceRef  # an instance configured by a folder that isn't DAGSTER_HOME
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus  # what the daemon asks about a run's process
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
