"""The extended SageMaker of tests and of the local run, held against what the service is known to do."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from emulator import sagemaker

SCRIPT = base64.b64encode(b"#!/bin/bash\necho hello\n").decode()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    sagemaker.extend_moto()
    with mock_aws():
        yield boto3.client("sagemaker", region_name="us-east-1")


def create(service: Any, name: str = "my-Notebook", **more: Any) -> str:
    role = "arn:aws:iam::123456789012:role/notebook"
    answer = service.create_notebook_instance(
        NotebookInstanceName=name, InstanceType="ml.t3.medium", RoleArn=role, **more
    )
    return str(answer["NotebookInstanceArn"])


def test_a_notebook_has_the_platform_that_it_was_given(service: Any) -> None:
    def platform(name: str) -> str:
        return str(service.describe_notebook_instance(NotebookInstanceName=name)["PlatformIdentifier"])

    create(service, "usual")
    create(service, "second", PlatformIdentifier="notebook-al2023-v2")
    assert (platform("usual"), platform("second")) == ("notebook-al2023-v1", "notebook-al2023-v2")
    with pytest.raises(ClientError, match="notebook-al2-v3"):
        create(service, "ended", PlatformIdentifier="notebook-al2-v3")


def status(service: Any, name: str = "my-Notebook") -> str:
    return str(service.describe_notebook_instance(NotebookInstanceName=name)["NotebookInstanceStatus"])


def refusal(call: Any, **parameters: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return f"{error['Code']}: {error['Message']}"


def test_statuses_take_time_and_wrong_ones_are_refused(service: Any) -> None:
    arn = create(service)
    me = {"NotebookInstanceName": "my-Notebook"}
    assert arn.endswith(":notebook-instance/my-notebook")
    assert status(service) == "Pending"
    assert "Status (Pending) not in ([InService])" in refusal(service.stop_notebook_instance, **me)
    sagemaker.finish_transitions()
    assert status(service) == "InService"
    assert "Unable to transition to (Pending)" in refusal(service.start_notebook_instance, **me)
    assert "Unable to transition to (Updating)" in refusal(
        service.update_notebook_instance, **me, DisassociateLifecycleConfig=True
    )
    service.stop_notebook_instance(**me)
    assert status(service) == "Stopping"
    sagemaker.finish_transitions()
    service.update_notebook_instance(**me, InstanceType="ml.t3.large")
    assert status(service) == "Updating"
    sagemaker.finish_transitions()
    assert status(service) == "Stopped"
    service.delete_notebook_instance(**me)
    assert status(service) == "Deleting"
    sagemaker.finish_transitions()
    assert "RecordNotFound" in refusal(service.describe_notebook_instance, **me)


def test_a_failed_start_says_why_and_can_be_tried_again(service: Any) -> None:
    create(service)
    sagemaker.fail("my-Notebook", "OnStart took longer than 5 minutes")
    known = service.describe_notebook_instance(NotebookInstanceName="my-Notebook")
    assert (known["NotebookInstanceStatus"], known["FailureReason"]) == ("Failed", "OnStart took longer than 5 minutes")
    service.start_notebook_instance(NotebookInstanceName="my-Notebook")
    assert status(service) == "Pending"


def test_configurations_are_attached_only_when_stopped_and_detached_again(service: Any) -> None:
    service.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="owner", OnStart=[{"Content": SCRIPT}]
    )
    create(service, LifecycleConfigName="owner")
    refused = refusal(service.delete_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName="owner")
    assert "in use by my-Notebook" in refused
    sagemaker.finish_transitions()
    service.stop_notebook_instance(NotebookInstanceName="my-Notebook")
    sagemaker.finish_transitions()
    service.update_notebook_instance(NotebookInstanceName="my-Notebook", DisassociateLifecycleConfig=True)
    known = service.describe_notebook_instance(NotebookInstanceName="my-Notebook")
    assert "NotebookInstanceLifecycleConfigName" not in known
    service.delete_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName="owner")
    assert "does not exist" in refusal(
        service.describe_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName="owner"
    )


def test_an_unknown_configuration_is_refused(service: Any) -> None:
    refused = refusal(
        service.create_notebook_instance,
        NotebookInstanceName="n",
        InstanceType="ml.t3.medium",
        RoleArn="arn:aws:iam::123456789012:role/notebook",
        LifecycleConfigName="nobody",
    )
    assert "Notebook Instance Lifecycle Config does not exist" in refused
    assert service.list_notebook_instances()["NotebookInstances"] == []


def test_a_configuration_is_updated_as_a_whole_within_its_limits(service: Any) -> None:
    name = {"NotebookInstanceLifecycleConfigName": "owner"}
    service.create_notebook_instance_lifecycle_config(
        **name, OnCreate=[{"Content": SCRIPT}], OnStart=[{"Content": SCRIPT}]
    )
    before = service.describe_notebook_instance_lifecycle_config(**name)
    largest = base64.b64encode(b"#" * 12_288).decode()
    service.update_notebook_instance_lifecycle_config(**name, OnStart=[{"Content": largest}])
    after = service.describe_notebook_instance_lifecycle_config(**name)
    assert after["OnStart"] == [{"Content": largest}]
    assert after.get("OnCreate", []) == []
    assert after["LastModifiedTime"] >= before["LastModifiedTime"]
    too_large = [{"Content": base64.b64encode(b"#" * 12_289).decode()}]
    assert "16384" in refusal(service.update_notebook_instance_lifecycle_config, **name, OnStart=too_large)


def test_tags_have_one_value_and_a_missing_resource_is_an_error(service: Any) -> None:
    arn = create(service, Tags=[{"Key": "team", "Value": "a"}])
    service.add_tags(ResourceArn=arn, Tags=[{"Key": "ssh", "Value": "ngrok"}])
    service.add_tags(ResourceArn=arn, Tags=[{"Key": "ssh", "Value": "bastion"}])
    tags = {tag["Key"]: tag["Value"] for tag in service.list_tags(ResourceArn=arn)["Tags"]}
    assert tags == {"team": "a", "ssh": "bastion"}
    assert len(service.list_tags(ResourceArn=arn)["Tags"]) == 2
    service.delete_tags(ResourceArn=arn, TagKeys=["ssh", "never-there"])
    assert [tag["Key"] for tag in service.list_tags(ResourceArn=arn)["Tags"]] == ["team"]
    assert "RecordNotFound" in refusal(service.list_tags, ResourceArn=arn + "-not")


def test_the_tagging_api_sees_notebooks_and_configurations(service: Any) -> None:
    arn = create(service, Tags=[{"Key": "ssh", "Value": "ngrok"}])
    create(service, "other")
    made = service.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName="ours",
        OnStart=[{"Content": SCRIPT}],
        Tags=[{"Key": "made-by", "Value": "us"}],
    )
    tagging = boto3.client("resourcegroupstaggingapi", region_name="us-east-1")
    found = tagging.get_resources(ResourceTypeFilters=["sagemaker:notebook-instance"], TagFilters=[{"Key": "ssh"}])
    assert [each["ResourceARN"] for each in found["ResourceTagMappingList"]] == [arn]
    assert service.list_tags(ResourceArn=made["NotebookInstanceLifecycleConfigArn"])["Tags"] == [
        {"Key": "made-by", "Value": "us"}
    ]


def test_lists_are_filtered_and_paged(service: Any) -> None:
    for number in range(12):
        service.create_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=f"owner-{number:02}", OnStart=[{"Content": SCRIPT}]
        )
        create(service, f"notebook-{number:02}", LifecycleConfigName=f"owner-{number:02}")
    first = service.list_notebook_instance_lifecycle_configs()
    rest = service.list_notebook_instance_lifecycle_configs(NextToken=first["NextToken"])
    names = [
        each["NotebookInstanceLifecycleConfigName"]
        for page in (first, rest)
        for each in page["NotebookInstanceLifecycleConfigs"]
    ]
    assert names == [f"owner-{number:02}" for number in range(12)]
    assert "LastModifiedTime" in first["NotebookInstanceLifecycleConfigs"][0]
    users = service.list_notebook_instances(NotebookInstanceLifecycleConfigNameContains="owner-1")["NotebookInstances"]
    assert [each["NotebookInstanceName"] for each in users] == ["notebook-10", "notebook-11"]
    assert "RoleArn" not in users[0]
    assert len(service.list_notebook_instances(MaxResults=100, StatusEquals="Pending")["NotebookInstances"]) == 12
    assert service.list_notebook_instances(StatusEquals="Stopped")["NotebookInstances"] == []
    newest = service.describe_notebook_instance(NotebookInstanceName="notebook-11")["LastModifiedTime"]
    assert service.list_notebook_instances(LastModifiedTimeAfter=newest.replace(year=2100))["NotebookInstances"] == []


def test_a_notebook_in_a_network_has_an_interface_with_a_private_address(service: Any) -> None:
    ec2 = boto3.client("ec2", region_name="us-east-1")
    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="notebook", Description="d", VpcId=network)["GroupId"]
    create(service, SubnetId=subnet, SecurityGroupIds=[group])
    interface = service.describe_notebook_instance(NotebookInstanceName="my-Notebook")["NetworkInterfaceId"]
    known = ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"][0]
    assert known["PrivateIpAddress"].startswith("10.0.1.")
    assert [each["GroupId"] for each in known["Groups"]] == [group]


def test_writes_can_be_paced_as_the_service_paces_them(service: Any) -> None:
    now = 100.0
    sagemaker.throttle_writes(1, clock=lambda: now)
    try:
        create(service, "one")
        refused = refusal(
            service.create_notebook_instance_lifecycle_config,
            NotebookInstanceLifecycleConfigName="too-soon",
            OnStart=[{"Content": SCRIPT}],
        )
        assert refused.startswith("ThrottlingException")
        now = 101.0
        create(service, "two")
    finally:
        sagemaker.throttle_writes(0)


def test_listeners_hear_what_changed(service: Any) -> None:
    heard: list[sagemaker.Happening] = []
    sagemaker.subscribe(heard.append)
    try:
        arn = create(service)
        service.add_tags(ResourceArn=arn, Tags=[{"Key": "ssh", "Value": "ngrok"}])
        service.add_tags(ResourceArn=arn, Tags=[{"Key": "ssh", "Value": "ngrok"}])
        sagemaker.finish_transitions()
    finally:
        sagemaker.unsubscribe(heard.append)
    told = [(each.notebook["NotebookInstanceStatus"]) for each in heard if isinstance(each, sagemaker.StatusChanged)]
    assert told == ["Pending", "InService"]
    tags = [each for each in heard if isinstance(each, sagemaker.TagsChanged)]
    assert [(each.changed, dict(each.tags)) for each in tags] == [(("ssh",), {"ssh": "ngrok"})]
