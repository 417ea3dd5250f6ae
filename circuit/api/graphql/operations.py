"""The roots of the schema, with the operations of every subject.

A new subject is a line in each root that it has.
"""

from __future__ import annotations

import strawberry

from circuit.api.graphql.agents import AgentMutations, AgentQueries
from circuit.api.graphql.attendance import AttendanceSubscriptions
from circuit.api.graphql.audit import AuditQueries
from circuit.api.graphql.budgets import BudgetMutations, BudgetQueries
from circuit.api.graphql.cases import CaseMutations, CaseQueries
from circuit.api.graphql.commands import CommandQueries
from circuit.api.graphql.conversations import ConversationMutations, ConversationQueries
from circuit.api.graphql.costs import CostQueries
from circuit.api.graphql.executions import ExecutionMutations, ExecutionQueries
from circuit.api.graphql.following import FollowingSubscriptions
from circuit.api.graphql.grants import GrantMutations, GrantQueries
from circuit.api.graphql.history import HistorySubscriptions
from circuit.api.graphql.incidents import IncidentMutations, IncidentQueries
from circuit.api.graphql.keys import KeyMutations, KeyQueries
from circuit.api.graphql.limits import LimitMutations, LimitQueries
from circuit.api.graphql.messages import MessageMutations, MessageQueries
from circuit.api.graphql.migration import MigrationMutations
from circuit.api.graphql.models import ModelQueries
from circuit.api.graphql.modification import ModificationMutations
from circuit.api.graphql.place_agents import PlaceAgentMutations, PlaceAgentQueries
from circuit.api.graphql.providers import ProviderQueries
from circuit.api.graphql.schedules import ScheduleQueries
from circuit.api.graphql.server import ServerQueries
from circuit.api.graphql.streams import StreamMutations, StreamSubscriptions
from circuit.api.graphql.subjects import SubjectMutations, SubjectQueries
from circuit.api.graphql.tasks import TaskMutations, TaskQueries
from circuit.api.graphql.tokens import TokenMutations, TokenQueries
from circuit.api.graphql.travel import TravelMutations, TravelQueries
from circuit.api.graphql.workflows import WorkflowMutations, WorkflowQueries


@strawberry.type
class Query(
    WorkflowQueries,
    AgentQueries,
    GrantQueries,
    KeyQueries,
    ProviderQueries,
    PlaceAgentQueries,
    CaseQueries,
    MessageQueries,
    TokenQueries,
    ExecutionQueries,
    IncidentQueries,
    TaskQueries,
    CommandQueries,
    ConversationQueries,
    BudgetQueries,
    CostQueries,
    LimitQueries,
    TravelQueries,
    ScheduleQueries,
    AuditQueries,
    SubjectQueries,
    ModelQueries,
    ServerQueries,
):
    pass


@strawberry.type
class Mutation(
    WorkflowMutations,
    AgentMutations,
    GrantMutations,
    KeyMutations,
    PlaceAgentMutations,
    CaseMutations,
    TokenMutations,
    TaskMutations,
    IncidentMutations,
    ExecutionMutations,
    ConversationMutations,
    BudgetMutations,
    LimitMutations,
    ModificationMutations,
    MigrationMutations,
    TravelMutations,
    MessageMutations,
    SubjectMutations,
    StreamMutations,
):
    pass


@strawberry.type
class Subscription(
    StreamSubscriptions,
    HistorySubscriptions,
    FollowingSubscriptions,
    AttendanceSubscriptions,
):
    pass
