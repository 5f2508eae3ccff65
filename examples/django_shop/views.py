import json
from uuid import UUID

from django.db import connection, transaction
from django.http import HttpRequest, JsonResponse

from allim.events import DomainEvent, publish
from examples.django_shop.models import User


class UserCreated(DomainEvent):
    topic = "user-events"
    user_id: UUID
    username: str


@transaction.atomic
def sign_up(request: HttpRequest) -> JsonResponse:
    user = User.objects.create(name=json.loads(request.body)["name"])
    # The row and the event are committed together, or neither is.
    publish(connection, UserCreated(user_id=user.id, username=user.name))
    return JsonResponse({"id": str(user.id)}, status=201)
