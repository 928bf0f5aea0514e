//! Kafka's requests: names, versions, and what of their fields a row needs.
//!
//! Source: the message definitions of Apache Kafka 4.1 (clients/src/main/resources/common/message), for the versions
//! that it dropped those of Kafka 3.9. A list of fields ends where nothing more is wanted.

use super::fields::Item::{Bytes, Each, Int8, Int16, Int32, Int64, List, Skip, Text, TopicId};
use super::fields::Means::{Acks, Error, ErrorText, Group, Key, KeyType, Nothing, Offset, Partition, Records, Topic};
use super::fields::{Field, Item, always, between, since, until};

pub struct Api {
    pub name: &'static str,
    /// Newest version that is known.
    pub newest: i16,
    /// First version with compact types and tagged fields.
    flexible: i16,
    pub request: &'static [Field],
    pub response: &'static [Field],
}

impl Api {
    pub fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }
}

/// The request of a key.
pub fn by_key(key: i16) -> Option<&'static Api> {
    usize::try_from(key).ok().and_then(|key| APIS.get(key))
}

pub const PRODUCE: i16 = 0;
pub const FETCH: i16 = 1;
pub const CONTROLLED_SHUTDOWN: i16 = 7;
pub const SASL_HANDSHAKE: i16 = 17;
pub const API_VERSIONS: i16 = 18;
const NEVER: i16 = i16::MAX;

const fn api(
    name: &'static str,
    newest: i16,
    flexible: i16,
    request: &'static [Field],
    response: &'static [Field],
) -> Api {
    Api { name, newest, flexible, request, response }
}

const SOME_STRING: Field = always(Text(Nothing));
const GROUP: &[Field] = &[always(Text(Group))];
const GROUPS: &[Field] = &[always(List(&Text(Group)))];
const ERROR: &[Field] = &[always(Int16(Error))];
const THROTTLE_ERROR: &[Field] = &[always(Skip(4)), always(Int16(Error))];
/// An error and its text after the throttle time.
const THROTTLE_ERROR_TEXT: &[Field] = &[always(Skip(4)), always(Int16(Error)), always(Text(ErrorText))];
const THROTTLE_RESULTS: &[Field] =
    &[always(Skip(4)), always(Each(&[always(Int16(Error)), always(Text(ErrorText)), always(Skip(1)), SOME_STRING]))];
const NONE: &[Field] = &[];

const PRODUCE_REQUEST: &[Field] = &[
    since(3, Text(Nothing)),
    always(Int16(Acks)),
    always(Skip(4)),
    always(Each(&[
        until(12, Text(Topic)),
        since(13, TopicId),
        always(Each(&[always(Int32(Partition)), always(Bytes(Records))])),
    ])),
];
const PRODUCE_RESPONSE: &[Field] = &[always(Each(&[
    until(12, Text(Topic)),
    since(13, TopicId),
    always(Each(&[
        always(Int32(Partition)),
        always(Int16(Error)),
        always(Int64(Offset)),
        since(2, Skip(8)),
        since(5, Skip(8)),
        since(8, Each(&[always(Skip(4)), SOME_STRING])),
        since(8, Text(ErrorText)),
    ])),
]))];
const FETCH_REQUEST: &[Field] = &[
    until(14, Skip(4)),
    always(Skip(8)),
    since(3, Skip(4)),
    since(4, Skip(1)),
    since(7, Skip(8)),
    always(Each(&[
        until(12, Text(Topic)),
        since(13, TopicId),
        always(Each(&[
            always(Int32(Partition)),
            since(9, Skip(4)),
            always(Int64(Offset)),
            since(12, Skip(4)),
            since(5, Skip(8)),
            always(Skip(4)),
        ])),
    ])),
];
const FETCH_RESPONSE: &[Field] = &[
    since(1, Skip(4)),
    since(7, Int16(Error)),
    since(7, Skip(4)),
    always(Each(&[
        until(12, Text(Topic)),
        since(13, TopicId),
        always(Each(&[
            always(Int32(Partition)),
            always(Int16(Error)),
            always(Skip(8)),
            since(4, Skip(8)),
            since(5, Skip(8)),
            since(4, Each(&[always(Skip(16))])),
            since(11, Skip(4)),
            always(Bytes(Records)),
        ])),
    ])),
];
const LIST_OFFSETS_REQUEST: &[Field] = &[
    always(Skip(4)),
    since(2, Skip(1)),
    always(Each(&[
        always(Text(Topic)),
        always(Each(&[always(Int32(Partition)), since(4, Skip(4)), always(Skip(8)), until(0, Skip(4))])),
    ])),
];
const LIST_OFFSETS_RESPONSE: &[Field] = &[
    since(2, Skip(4)),
    always(Each(&[
        always(Text(Topic)),
        always(Each(&[
            always(Int32(Partition)),
            always(Int16(Error)),
            until(0, List(&Skip(8))),
            since(1, Skip(16)),
            since(4, Skip(4)),
        ])),
    ])),
];
const METADATA_REQUEST: &[Field] = &[always(Each(&[since(10, TopicId), always(Text(Topic))]))];
const METADATA_RESPONSE: &[Field] = &[
    since(3, Skip(4)),
    always(Each(&[always(Skip(4)), SOME_STRING, always(Skip(4)), since(1, Text(Nothing))])),
    since(2, Text(Nothing)),
    since(1, Skip(4)),
    always(Each(&[
        always(Int16(Error)),
        always(Text(Topic)),
        since(10, TopicId),
        since(1, Skip(1)),
        always(Each(&[
            always(Int16(Error)),
            always(Skip(8)),
            since(7, Skip(4)),
            always(List(&Skip(4))),
            always(List(&Skip(4))),
            since(5, List(&Skip(4))),
        ])),
        since(8, Skip(4)),
    ])),
    between(8, 10, Skip(4)),
    since(13, Int16(Error)),
];
const OFFSET_COMMIT_REQUEST: &[Field] = &[
    always(Text(Group)),
    since(1, Skip(4)),
    since(1, Text(Nothing)),
    since(7, Text(Nothing)),
    between(2, 4, Skip(8)),
    always(Each(&[
        until(9, Text(Topic)),
        since(10, TopicId),
        always(Each(&[
            always(Int32(Partition)),
            always(Int64(Offset)),
            since(6, Skip(4)),
            between(1, 1, Skip(8)),
            SOME_STRING,
        ])),
    ])),
];
const PARTITION_ERRORS: &[Field] =
    &[until(9, Text(Topic)), since(10, TopicId), always(Each(&[always(Int32(Partition)), always(Int16(Error))]))];
const OFFSET_COMMIT_RESPONSE: &[Field] = &[since(3, Skip(4)), always(Each(PARTITION_ERRORS))];
const OFFSET_FETCH_REQUEST: &[Field] = &[
    until(7, Text(Group)),
    until(7, Each(&[always(Text(Topic)), always(List(&Int32(Partition)))])),
    since(
        8,
        Each(&[
            always(Text(Group)),
            since(9, Text(Nothing)),
            since(9, Skip(4)),
            always(Each(&[until(9, Text(Topic)), since(10, TopicId), always(List(&Int32(Partition)))])),
        ]),
    ),
];
const OFFSET_FETCH_RESPONSE: &[Field] = &[
    since(3, Skip(4)),
    until(7, Each(&[always(Text(Topic)), always(Each(FETCHED_OFFSETS))])),
    between(2, 7, Int16(Error)),
    since(
        8,
        Each(&[
            always(Text(Group)),
            always(Each(&[until(9, Text(Topic)), since(10, TopicId), always(Each(FETCHED_OFFSETS))])),
            always(Int16(Error)),
        ]),
    ),
];
const FETCHED_OFFSETS: &[Field] =
    &[always(Int32(Partition)), always(Skip(8)), since(5, Skip(4)), SOME_STRING, always(Int16(Error))];
const FIND_COORDINATOR_REQUEST: &[Field] = &[until(3, Text(Key)), since(1, Int8(KeyType)), since(4, List(&Text(Key)))];
const FIND_COORDINATOR_RESPONSE: &[Field] = &[
    since(1, Skip(4)),
    until(3, Int16(Error)),
    between(1, 3, Text(ErrorText)),
    until(3, Skip(4)),
    until(3, Text(Nothing)),
    until(3, Skip(4)),
    since(
        4,
        Each(&[
            SOME_STRING,
            always(Skip(4)),
            SOME_STRING,
            always(Skip(4)),
            always(Int16(Error)),
            always(Text(ErrorText)),
        ]),
    ),
];
const JOIN_GROUP_RESPONSE: &[Field] = &[since(2, Skip(4)), always(Int16(Error))];
const SINCE1_ERROR: &[Field] = &[since(1, Skip(4)), always(Int16(Error))];
const LEAVE_GROUP_RESPONSE: &[Field] =
    &[since(1, Skip(4)), always(Int16(Error)), since(3, Each(&[SOME_STRING, SOME_STRING, always(Int16(Error))]))];
const DESCRIBE_GROUPS_RESPONSE: &[Field] = &[
    since(1, Skip(4)),
    always(Each(&[
        always(Int16(Error)),
        since(6, Text(ErrorText)),
        SOME_STRING,
        SOME_STRING,
        SOME_STRING,
        SOME_STRING,
        always(Each(&[
            SOME_STRING,
            since(4, Text(Nothing)),
            SOME_STRING,
            SOME_STRING,
            always(Bytes(Nothing)),
            always(Bytes(Nothing)),
        ])),
        since(3, Skip(4)),
    ])),
];
const CREATE_TOPICS_REQUEST: &[Field] = &[always(Each(&[
    always(Text(Topic)),
    always(Skip(6)),
    always(Each(&[always(Skip(4)), always(List(&Skip(4)))])),
    always(Each(&[SOME_STRING, SOME_STRING])),
]))];
const CREATE_TOPICS_RESPONSE: &[Field] = &[
    since(2, Skip(4)),
    always(Each(&[
        always(Text(Topic)),
        since(7, TopicId),
        always(Int16(Error)),
        since(1, Text(ErrorText)),
        since(5, Skip(6)),
        since(5, Each(&[SOME_STRING, SOME_STRING, always(Skip(3))])),
    ])),
];
const DELETE_TOPICS_REQUEST: &[Field] =
    &[since(6, Each(&[always(Text(Topic)), always(TopicId)])), until(5, List(&Text(Topic)))];
const DELETE_TOPICS_RESPONSE: &[Field] = &[
    since(1, Skip(4)),
    always(Each(&[always(Text(Topic)), since(6, TopicId), always(Int16(Error)), since(5, Text(ErrorText))])),
];
const DELETE_RECORDS_REQUEST: &[Field] =
    &[always(Each(&[always(Text(Topic)), always(Each(&[always(Int32(Partition)), always(Int64(Offset))]))]))];
const DELETE_RECORDS_RESPONSE: &[Field] = &[
    always(Skip(4)),
    always(Each(&[
        always(Text(Topic)),
        always(Each(&[always(Int32(Partition)), always(Skip(8)), always(Int16(Error))])),
    ])),
];
const EPOCH_END_REQUEST: &[Field] = &[
    since(3, Skip(4)),
    always(Each(&[always(Text(Topic)), always(Each(&[always(Int32(Partition)), since(2, Skip(4)), always(Skip(4))]))])),
];
const EPOCH_END_RESPONSE: &[Field] = &[
    since(2, Skip(4)),
    always(Each(&[
        always(Text(Topic)),
        always(Each(&[always(Int16(Error)), always(Int32(Partition)), since(1, Skip(4)), always(Skip(8))])),
    ])),
];
const TXN_TOPICS: Item = Each(&[always(Text(Topic)), always(List(&Int32(Partition)))]);
const ADD_PARTITIONS_REQUEST: &[Field] = &[
    since(4, Each(&[SOME_STRING, always(Skip(11)), always(TXN_TOPICS)])),
    until(3, Text(Nothing)),
    until(3, Skip(10)),
    until(3, TXN_TOPICS),
];
const TXN_RESULTS: Item = Each(&[always(Text(Topic)), always(Each(&[always(Int32(Partition)), always(Int16(Error))]))]);
const ADD_PARTITIONS_RESPONSE: &[Field] = &[
    always(Skip(4)),
    since(4, Int16(Error)),
    since(4, Each(&[SOME_STRING, always(TXN_RESULTS)])),
    until(3, TXN_RESULTS),
];
const ADD_OFFSETS_REQUEST: &[Field] = &[SOME_STRING, always(Skip(10)), always(Text(Group))];
const TXN_COMMIT_REQUEST: &[Field] = &[
    SOME_STRING,
    always(Text(Group)),
    always(Skip(10)),
    since(3, Skip(4)),
    since(3, Text(Nothing)),
    since(3, Text(Nothing)),
    always(Each(&[
        always(Text(Topic)),
        always(Each(&[always(Int32(Partition)), always(Int64(Offset)), since(2, Skip(4)), SOME_STRING])),
    ])),
];
const TXN_COMMIT_RESPONSE: &[Field] = &[always(Skip(4)), always(Each(PARTITION_ERRORS))];
const ERROR_TEXT: &[Field] = &[always(Int16(Error)), always(Text(ErrorText))];
const CREATE_PARTITIONS_REQUEST: &[Field] =
    &[always(Each(&[always(Text(Topic)), always(Skip(4)), always(Each(&[always(List(&Skip(4)))]))]))];
const CREATE_PARTITIONS_RESPONSE: &[Field] =
    &[always(Skip(4)), always(Each(&[always(Text(Topic)), always(Int16(Error)), always(Text(ErrorText))]))];
const DELETE_GROUPS_RESPONSE: &[Field] = &[always(Skip(4)), always(Each(&[SOME_STRING, always(Int16(Error))]))];
const ELECT_LEADERS_REQUEST: &[Field] =
    &[since(1, Skip(1)), always(Each(&[always(Text(Topic)), always(List(&Int32(Partition)))]))];
const ELECT_LEADERS_RESPONSE: &[Field] = &[
    always(Skip(4)),
    since(1, Int16(Error)),
    always(Each(&[
        always(Text(Topic)),
        always(Each(&[always(Int32(Partition)), always(Int16(Error)), always(Text(ErrorText))])),
    ])),
];
const OFFSET_DELETE_REQUEST: &[Field] =
    &[always(Text(Group)), always(Each(&[always(Text(Topic)), always(Each(&[always(Int32(Partition))]))]))];
const OFFSET_DELETE_RESPONSE: &[Field] = &[
    always(Int16(Error)),
    always(Skip(4)),
    always(Each(&[always(Text(Topic)), always(Each(&[always(Int32(Partition)), always(Int16(Error))]))])),
];
const TOPIC_PARTITIONS_REQUEST: &[Field] = &[always(Each(&[always(Text(Topic))]))];
const TOPIC_PARTITIONS_RESPONSE: &[Field] = &[
    always(Skip(4)),
    always(Each(&[
        always(Int16(Error)),
        always(Text(Topic)),
        always(TopicId),
        always(Skip(1)),
        always(Each(&[
            always(Int16(Error)),
            always(Skip(12)),
            always(List(&Skip(4))),
            always(List(&Skip(4))),
            always(List(&Skip(4))),
            always(List(&Skip(4))),
            always(List(&Skip(4))),
        ])),
        always(Skip(4)),
    ])),
];
const THROTTLE_EACH_ERROR_TEXT: &[Field] = &[always(Skip(4)), always(Each(ERROR_TEXT))];
const DESCRIBE_CONFIGS_RESPONSE: &[Field] = &[
    always(Skip(4)),
    always(Each(&[
        always(Int16(Error)),
        always(Text(ErrorText)),
        always(Skip(1)),
        SOME_STRING,
        always(Each(&[
            SOME_STRING,
            SOME_STRING,
            always(Skip(1)),
            since(1, Skip(1)),
            always(Skip(1)),
            since(1, Each(&[SOME_STRING, SOME_STRING, always(Skip(1))])),
            since(3, Skip(1)),
            since(3, Text(Nothing)),
        ])),
    ])),
];

/// By key.
#[rustfmt::skip]
static APIS: &[Api] = &[
    api("Produce", 13, 9, PRODUCE_REQUEST, PRODUCE_RESPONSE),
    api("Fetch", 18, 12, FETCH_REQUEST, FETCH_RESPONSE),
    api("ListOffsets", 10, 6, LIST_OFFSETS_REQUEST, LIST_OFFSETS_RESPONSE),
    api("Metadata", 13, 9, METADATA_REQUEST, METADATA_RESPONSE),
    api("LeaderAndIsr", 7, 4, NONE, ERROR),
    api("StopReplica", 4, 2, NONE, ERROR),
    api("UpdateMetadata", 8, 6, NONE, ERROR),
    api("ControlledShutdown", 3, 3, NONE, ERROR),
    api("OffsetCommit", 10, 8, OFFSET_COMMIT_REQUEST, OFFSET_COMMIT_RESPONSE),
    api("OffsetFetch", 10, 6, OFFSET_FETCH_REQUEST, OFFSET_FETCH_RESPONSE),
    api("FindCoordinator", 6, 3, FIND_COORDINATOR_REQUEST, FIND_COORDINATOR_RESPONSE),
    api("JoinGroup", 9, 6, GROUP, JOIN_GROUP_RESPONSE),
    api("Heartbeat", 4, 4, GROUP, SINCE1_ERROR),
    api("LeaveGroup", 5, 4, GROUP, LEAVE_GROUP_RESPONSE),
    api("SyncGroup", 5, 4, GROUP, SINCE1_ERROR),
    api("DescribeGroups", 6, 5, GROUPS, DESCRIBE_GROUPS_RESPONSE),
    api("ListGroups", 5, 3, NONE, SINCE1_ERROR),
    api("SaslHandshake", 1, NEVER, NONE, ERROR),
    api("ApiVersions", 4, 3, NONE, ERROR),
    api("CreateTopics", 7, 5, CREATE_TOPICS_REQUEST, CREATE_TOPICS_RESPONSE),
    api("DeleteTopics", 6, 4, DELETE_TOPICS_REQUEST, DELETE_TOPICS_RESPONSE),
    api("DeleteRecords", 2, 2, DELETE_RECORDS_REQUEST, DELETE_RECORDS_RESPONSE),
    api("InitProducerId", 6, 2, NONE, THROTTLE_ERROR),
    api("OffsetForLeaderEpoch", 4, 4, EPOCH_END_REQUEST, EPOCH_END_RESPONSE),
    api("AddPartitionsToTxn", 5, 3, ADD_PARTITIONS_REQUEST, ADD_PARTITIONS_RESPONSE),
    api("AddOffsetsToTxn", 4, 3, ADD_OFFSETS_REQUEST, THROTTLE_ERROR),
    api("EndTxn", 5, 3, NONE, THROTTLE_ERROR),
    api("WriteTxnMarkers", 1, 1, NONE, NONE),
    api("TxnOffsetCommit", 5, 3, TXN_COMMIT_REQUEST, TXN_COMMIT_RESPONSE),
    api("DescribeAcls", 3, 2, NONE, THROTTLE_ERROR_TEXT),
    api("CreateAcls", 3, 2, NONE, THROTTLE_EACH_ERROR_TEXT),
    api("DeleteAcls", 3, 2, NONE, NONE),
    api("DescribeConfigs", 4, 4, NONE, DESCRIBE_CONFIGS_RESPONSE),
    api("AlterConfigs", 2, 2, NONE, THROTTLE_RESULTS),
    api("AlterReplicaLogDirs", 2, 2, NONE, NONE),
    api("DescribeLogDirs", 4, 2, NONE, NONE),
    api("SaslAuthenticate", 2, 2, NONE, ERROR_TEXT),
    api("CreatePartitions", 3, 2, CREATE_PARTITIONS_REQUEST, CREATE_PARTITIONS_RESPONSE),
    api("CreateDelegationToken", 3, 2, NONE, ERROR),
    api("RenewDelegationToken", 2, 2, NONE, ERROR),
    api("ExpireDelegationToken", 2, 2, NONE, ERROR),
    api("DescribeDelegationToken", 3, 2, NONE, ERROR),
    api("DeleteGroups", 2, 2, GROUPS, DELETE_GROUPS_RESPONSE),
    api("ElectLeaders", 2, 2, ELECT_LEADERS_REQUEST, ELECT_LEADERS_RESPONSE),
    api("IncrementalAlterConfigs", 1, 1, NONE, THROTTLE_RESULTS),
    api("AlterPartitionReassignments", 1, 0, NONE, NONE),
    api("ListPartitionReassignments", 0, 0, NONE, THROTTLE_ERROR_TEXT),
    api("OffsetDelete", 0, NEVER, OFFSET_DELETE_REQUEST, OFFSET_DELETE_RESPONSE),
    api("DescribeClientQuotas", 1, 1, NONE, THROTTLE_ERROR_TEXT),
    api("AlterClientQuotas", 1, 1, NONE, NONE),
    api("DescribeUserScramCredentials", 0, 0, NONE, THROTTLE_ERROR_TEXT),
    api("AlterUserScramCredentials", 0, 0, NONE, NONE),
    api("Vote", 2, 0, NONE, ERROR),
    api("BeginQuorumEpoch", 1, 1, NONE, ERROR),
    api("EndQuorumEpoch", 1, 1, NONE, ERROR),
    api("DescribeQuorum", 2, 0, NONE, ERROR),
    api("AlterPartition", 3, 0, NONE, THROTTLE_ERROR),
    api("UpdateFeatures", 2, 0, NONE, THROTTLE_ERROR_TEXT),
    api("Envelope", 0, 0, NONE, NONE),
    api("FetchSnapshot", 1, 0, NONE, THROTTLE_ERROR),
    api("DescribeCluster", 2, 0, NONE, THROTTLE_ERROR_TEXT),
    api("DescribeProducers", 0, 0, NONE, NONE),
    api("BrokerRegistration", 4, 0, NONE, THROTTLE_ERROR),
    api("BrokerHeartbeat", 1, 0, NONE, THROTTLE_ERROR),
    api("UnregisterBroker", 0, 0, NONE, THROTTLE_ERROR_TEXT),
    api("DescribeTransactions", 0, 0, NONE, NONE),
    api("ListTransactions", 2, 0, NONE, THROTTLE_ERROR),
    api("AllocateProducerIds", 0, 0, NONE, THROTTLE_ERROR),
    api("ConsumerGroupHeartbeat", 1, 0, GROUP, THROTTLE_ERROR_TEXT),
    api("ConsumerGroupDescribe", 1, 0, GROUPS, NONE),
    api("ControllerRegistration", 0, 0, NONE, THROTTLE_ERROR_TEXT),
    api("GetTelemetrySubscriptions", 0, 0, NONE, THROTTLE_ERROR),
    api("PushTelemetry", 0, 0, NONE, THROTTLE_ERROR),
    api("AssignReplicasToDirs", 0, 0, NONE, THROTTLE_ERROR),
    api("ListConfigResources", 1, 0, NONE, THROTTLE_ERROR),
    api("DescribeTopicPartitions", 0, 0, TOPIC_PARTITIONS_REQUEST, TOPIC_PARTITIONS_RESPONSE),
    api("ShareGroupHeartbeat", 1, 0, GROUP, THROTTLE_ERROR_TEXT),
    api("ShareGroupDescribe", 1, 0, GROUPS, NONE),
    api("ShareFetch", 1, 0, GROUP, THROTTLE_ERROR_TEXT),
    api("ShareAcknowledge", 1, 0, GROUP, THROTTLE_ERROR_TEXT),
    api("AddRaftVoter", 0, 0, NONE, THROTTLE_ERROR_TEXT),
    api("RemoveRaftVoter", 0, 0, NONE, THROTTLE_ERROR_TEXT),
    api("UpdateRaftVoter", 0, 0, NONE, THROTTLE_ERROR),
    api("InitializeShareGroupState", 0, 0, GROUP, NONE),
    api("ReadShareGroupState", 0, 0, GROUP, NONE),
    api("WriteShareGroupState", 0, 0, GROUP, NONE),
    api("DeleteShareGroupState", 0, 0, GROUP, NONE),
    api("ReadShareGroupStateSummary", 0, 0, GROUP, NONE),
    api("StreamsGroupHeartbeat", 0, 0, GROUP, THROTTLE_ERROR_TEXT),
    api("StreamsGroupDescribe", 0, 0, GROUPS, NONE),
    api("DescribeShareGroupOffsets", 0, 0, NONE, NONE),
    api("AlterShareGroupOffsets", 0, 0, GROUP, THROTTLE_ERROR_TEXT),
    api("DeleteShareGroupOffsets", 0, 0, GROUP, THROTTLE_ERROR_TEXT),
];
