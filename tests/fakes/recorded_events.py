"""Events and results as the world has them: the vault-ml README's, and every version of the format.

Sources: kerberos-io/vault examples/kafka-handler/README.md (2020), kerberos-io/nvidia-gpu-kubernetes
README.md (2021), uug-ai/cli queue/main.go (2024), uug-ai/models pkg/models/pipeline.go (2026).
"""

import json
from typing import Any

README_EVENT: dict[str, Any] = json.loads(
    """{"date": 1630643468,
    "events": ["monitor", "sequence", "analysis", "throttler", "notification"], "provider": "kstorage",
    "request": "persist", "payload": {
    "key": "youruser/1630643468_6-967003_highway4_200-200-400-400_24_769.mp4", "fileSize": 4545863,
    "is_fragmented": false, "metadata": {"uploadtime": "1630643468", "event-instancename": "highway4",
    "event-timestamp": "1630643468", "productid": "Bfuk14xm40eMSxwEEyrd908yzmDIwKp5",
    "event-numberofchanges": "24", "event-microseconds": "0", "event-regioncoordinates": "200-200-400-400",
    "capture": "IPCamera", "event-token": "0", "publickey": "ABCDEFGHI!@#$%12345"},
    "bytes_ranges": "", "bytes_range_on_time": null}, "source": "storj"}"""
)

README_RESULT: dict[str, Any] = {
    **README_EVENT,
    "data": {
        "probabilities": [[0.5907418131828308], [0.7311708927154541]],
        "labels": [["car"], ["truck"]],
        "boxes": [[[298, 36, 398, 79]], [[514, 53, 656, 129]]],
    },
    "operation": "classification",
}

EVENT_2020: dict[str, Any] = {
    "date": 1605178900,
    "source": "gcp-europe-west1",
    "payload": {
        "fileSize": 2064837,
        "key": "youruser/1605178899_6-967003_cam_200-200-400-400_24_769.mp4",
        "metadata": {"event-instancename": "cam", "productid": "Bfuk14xm40eMSxwEEyrd908yzmDIwKp5"},
    },
    "events": ["monitor", "sequence"],
    "provider": "kstorage",
}

EVENT_2024: dict[str, Any] = {
    **README_EVENT,
    "operation": "event",
    "data": {
        "storage_uri": "https://vault.example.com/api",
        "storage_access_key": "a-tenant-access-key",
        "storage_secret": "a-tenant-secret-key",
    },
    "secondary_providers": ["minio"],
    "bucket": "recordings",
    "region": "eu-west-1",
}

EVENT_2026: dict[str, Any] = {
    **README_EVENT,
    "fileName": "1630643468.mp4",
    "receivecount": 1,
    "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
    "payload": {
        **README_EVENT["payload"],
        "is_fragmented": True,
        "bytes_ranges": '#EXT-X-MAP:URI="",BYTERANGE="680@0"\\n#EXTINF:19.967,',
        "bytes_range_on_time": [{"duration": "19.967000", "time": "0.000000", "range": "5014474@680"}],
        "timestamp": 1630643468,
        "duration": "19967",
        "organisationId": "org",
        "deviceId": "device",
        "deviceName": "highway4",
        "signedUrl": "https://vault.example.com/api/storage/signed?a=key&p=storj&f=x&e=9&s=secret-signature",
    },
    "monitorStage": {
        "user": {"username": "youruser", "amazon_secret_access_key": "a-users-secret"},
        "plans": {"basic": {"uploads": 100}},
    },
}

WORKFLOW_RUN: dict[str, Any] = {
    "operation": "classify",
    "runId": "66f0",
    "key": "youruser/1630643468.mp4",
    "signedUrl": "https://vault.example.com/x?s=secret-signature",
    "storage": {"uri": "https://vault.example.com", "accessKey": "a-tenant-access-key", "secret": "s3cr3t"},
}

VERSIONS = {"2020": EVENT_2020, "readme": README_EVENT, "2024": EVENT_2024, "2026": EVENT_2026}

SECRETS = ("a-tenant-access-key", "a-tenant-secret-key", "secret-signature", "a-users-secret", "s3cr3t")
"""Values in the events above that must never leave."""
