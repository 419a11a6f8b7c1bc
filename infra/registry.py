"""The registry the recovery image is pulled from, in the DR region: one in the primary region would be lost with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import pulumi
import pulumi_aws as aws

# Images without a tag are builds that `latest` has moved on from; a month lets a bad one be taken back.
_UNTAGGED_DAYS: Final = 30


@dataclass(frozen=True, kw_only=True)
class RegistryArgs:
    """One repository, encrypted with `key_arn`."""

    region: str
    repository: str
    key_arn: pulumi.Input[str]


class Registry(pulumi.ComponentResource):
    """An encrypted ECR repository whose images are scanned when pushed."""

    url: pulumi.Output[str]

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("agentverse:infra:Registry", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        repository = aws.ecr.Repository(
            f"{name}-repository",
            region=args.region,
            name=args.repository,
            image_tag_mutability="MUTABLE",
            image_scanning_configuration=aws.ecr.RepositoryImageScanningConfigurationArgs(scan_on_push=True),
            encryption_configurations=[
                aws.ecr.RepositoryEncryptionConfigurationArgs(encryption_type="KMS", kms_key=args.key_arn)
            ],
            opts=child,
        )
        aws.ecr.LifecyclePolicy(
            f"{name}-lifecycle",
            region=args.region,
            repository=repository.name,
            policy=json.dumps(lifecycle_policy()),
            opts=child,
        )
        self.url = repository.repository_url
        self.register_outputs({"url": self.url})


def lifecycle_policy() -> dict[str, object]:
    """Return the repository's lifecycle: images that lost their tag expire, tagged ones never do."""
    return {
        "rules": [
            {
                "rulePriority": 1,
                "description": "Images that lost their tag",
                "selection": {
                    "tagStatus": "untagged",
                    "countType": "sinceImagePushed",
                    "countUnit": "days",
                    "countNumber": _UNTAGGED_DAYS,
                },
                "action": {"type": "expire"},
            }
        ]
    }
