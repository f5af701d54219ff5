package import MartletBasics

/// Every metric that a broker tells, in the order of its page. The reference in docs/metrics.md is written from this.
package enum MetricCatalog {
    package struct Section: Sendable {
        package let title: String
        package let families: [MetricFamily]
    }

    package static let sections: [Section] = [
        Section(
            title: "The broker and its process",
            families: [
                ready, processorSeconds, residentBytes, virtualBytes, anonymousBytes, openDescriptors, descriptorLimit,
                startTime,
                scrapes, scrapeSeconds,
            ]),
        Section(title: "Requests", families: [requests, requestErrors, requestSeconds, requestBytes, responseBytes]),
        Section(
            title: "Connections and memory",
            families: [
                connections, connectionsOpened, connectionsClosed, connectionsRefused, requestMemory, requestMemoryLimit,
                requestMemoryWaiting, outboxes, fetchSessions, fetchSessionLimit, openLogFiles,
            ]),
        Section(title: "Quotas", families: [throttles, throttleSeconds, quotaMeters]),
        Section(
            title: "Event loops and lanes",
            families: [turnSeconds, longestTurn, laneQueue, laneRunning, laneCompleted, laneRefused, laneBusy, laneWait]),
        Section(
            title: "Topics",
            families: [
                topicReceivedRecords, topicReceivedBytes, topicSentRecords, topicSentBytes, topicSize, topicSegments,
                topicPartitions,
            ]),
        Section(
            title: "Partitions",
            families: [
                partitions, underReplicated, waitingAppends, logStart, logEnd, highWatermark, partitionSize, unlistedPartitions,
            ]),
        Section(
            title: "Compaction",
            families: [
                uncleanablePartitions, maxDirtyRatio, compactedUpTo, cleanBytes, dirtyBytes, partitionCompactions,
                partitionSavedBytes, lastCompaction, uncleanable,
            ]),
        Section(
            title: "Disks and syncs",
            families: [
                syncSeconds, syncRecords, syncedBytes, syncedFiles, fileSystemSyncs, syncFailures, directoryOffline, diskTotal,
                diskAvailable,
            ]),
        Section(
            title: "Upkeep of the logs",
            families: [
                rolledSegments, removedSegments, removedBytes, recoveredLogs, recoveredBytes, putAsideBytes,
                compactions, compactionReadBytes, compactionWrittenBytes, compactionSavedBytes, compactionDroppedRecords,
            ]),
        Section(
            title: "The keeper",
            families: [keeperZxid, keeperWriteSeconds, keeperWaiting, keeperSessions, keeperWatches, keeperNodes, keeperBytes]),
        Section(
            title: "Consumer groups",
            families: [
                groupMemory, groups, groupMembers, groupOffset, groupLagRecords, groupLagSeconds, unlistedGroupPartitions,
            ]),
        Section(title: "Transactions", families: [transactionMemory, transactions, endedTransactions, timedOutTransactions]),
    ]

    package static var all: [MetricFamily] { sections.flatMap(\.families) }

    // MARK: The broker and its process

    static let ready = MetricFamily("martlet_ready", .gauge, "1 when clients are served, else 0.")
    static let processorSeconds = MetricFamily(
        "process_cpu_seconds_total", .counter, "Processor time that the process has spent, in seconds.")
    static let residentBytes = MetricFamily(
        "process_resident_memory_bytes", .gauge, "Memory that the process has, pages of files included.")
    static let virtualBytes = MetricFamily("process_virtual_memory_bytes", .gauge, "Addresses that the process has.")
    static let anonymousBytes = MetricFamily(
        "martlet_process_anonymous_memory_bytes", .gauge, "Memory that the process has allocated itself.")
    static let openDescriptors = MetricFamily("process_open_fds", .gauge, "Open file descriptors.")
    static let descriptorLimit = MetricFamily("process_max_fds", .gauge, "The most file descriptors that may be open.")
    static let startTime = MetricFamily(
        "process_start_time_seconds", .gauge, "When the process started, in seconds since 1970.")
    static let scrapes = MetricFamily("martlet_scrapes_total", .counter, "Pages of metrics that were made, this one included.")
    static let scrapeSeconds = MetricFamily(
        "martlet_scrape_duration_seconds", .gauge,
        "How long the page before this one took to make, nearly all of it off the event loops.")

    // MARK: Requests

    static let requests = MetricFamily("martlet_requests_total", .counter, "Requests that were begun.", labels: ["api"])
    static let requestErrors = MetricFamily(
        "martlet_request_errors_total", .counter,
        "Error codes in answers, each partition's or topic's counted.",
        labels: ["api", "error"])
    static let requestSeconds = MetricFamily(
        "martlet_request_duration_seconds", .histogram,
        "From when a request is there as a whole, and its turn has come, until its answer has gone to the socket. A "
            + "Fetch that waits for records counts its waiting.",
        labels: ["api"])
    static let requestBytes = MetricFamily("martlet_request_size_bytes", .histogram, "Sizes of requests.", labels: ["api"])
    static let responseBytes = MetricFamily(
        "martlet_response_size_bytes", .histogram, "Sizes of answers, records included.", labels: ["api"])

    // MARK: Quotas

    static let throttles = MetricFamily(
        "martlet_throttles_total", .counter,
        "How often a client was told to wait, or a connection kept waiting, because of a quota.",
        labels: ["quota"])
    static let throttleSeconds = MetricFamily(
        "martlet_throttle_seconds_total", .counter, "How long they were told to wait, in all.", labels: ["quota"])
    static let quotaMeters = MetricFamily(
        "martlet_quota_meters", .gauge,
        "Users, clients and pairs of both whose rates are measured, once for each kind of quota.")

    // MARK: Connections and memory

    static let connections = MetricFamily("martlet_connections", .gauge, "Open connections of clients.")
    static let connectionsOpened = MetricFamily("martlet_connections_opened_total", .counter, "Connections that were taken.")
    static let connectionsClosed = MetricFamily("martlet_connections_closed_total", .counter, "Connections that have ended.")
    static let connectionsRefused = MetricFamily(
        "martlet_connections_refused_total", .counter,
        "Connections that were closed at once, because of max.connections or max.connections.per.ip.")
    static let requestMemory = MetricFamily(
        "martlet_request_memory_bytes", .gauge, "Memory held by requests that do not arrive in one piece.")
    static let requestMemoryLimit = MetricFamily("martlet_request_memory_limit_bytes", .gauge, "The bound on it.")
    static let requestMemoryWaiting = MetricFamily(
        "martlet_request_memory_waiting", .gauge, "Requests that wait for such memory.")
    static let outboxes = MetricFamily(
        "martlet_outbox_bytes", .gauge, "Answers that wait because clients read slowly; records that lie in files included.")
    static let fetchSessions = MetricFamily("martlet_fetch_sessions", .gauge, "Fetch sessions that are remembered.")
    static let fetchSessionLimit = MetricFamily("martlet_fetch_sessions_limit", .gauge, "The most there may be.")
    static let openLogFiles = MetricFamily("martlet_log_files_open", .gauge, "Segment files that are held open.")

    // MARK: Event loops and lanes

    static let turnSeconds = MetricFamily(
        "martlet_loop_turn_duration_seconds", .histogram,
        "How long turns of an event loop took, the waiting for something to do left out. The sum is the time that it was busy.",
        labels: ["loop"])
    static let longestTurn = MetricFamily(
        "martlet_loop_longest_turn_seconds", .gauge, "The longest turn since the start.", labels: ["loop"])
    static let laneQueue = MetricFamily(
        "martlet_lane_queued", .gauge, "Pieces of work that wait for a thread of the lane.", labels: ["lane"])
    static let laneRunning = MetricFamily(
        "martlet_lane_running", .gauge, "Pieces of work that threads of the lane are at.", labels: ["lane"])
    static let laneCompleted = MetricFamily(
        "martlet_lane_completed_total", .counter, "Pieces of work that are done.", labels: ["lane"])
    static let laneRefused = MetricFamily(
        "martlet_lane_refused_total", .counter, "Pieces of work that found the queue full.", labels: ["lane"])
    static let laneBusy = MetricFamily(
        "martlet_lane_busy_seconds_total", .counter,
        "Time that threads of the lane have spent on work that is done.",
        labels: ["lane"])
    static let laneWait = MetricFamily(
        "martlet_lane_wait_seconds_total", .counter, "Time that work which is done had waited for a thread.", labels: ["lane"])

    // MARK: Topics

    static let topicReceivedRecords = MetricFamily(
        "martlet_topic_received_records_total", .counter, "Records that were appended.", labels: ["topic"])
    static let topicReceivedBytes = MetricFamily(
        "martlet_topic_received_bytes_total", .counter,
        "Bytes of record batches that were appended, as they are stored.",
        labels: ["topic"])
    static let topicSentRecords = MetricFamily(
        "martlet_topic_sent_records_total", .counter,
        "Records sent to consumers. Batches are not opened for it: where an answer is cut by a limit on its size, the "
            + "number is estimated from its bytes.",
        labels: ["topic"])
    static let topicSentBytes = MetricFamily(
        "martlet_topic_sent_bytes_total", .counter, "Bytes of record batches sent to consumers.", labels: ["topic"])
    static let topicSize = MetricFamily(
        "martlet_topic_size_bytes", .gauge, "Bytes of record batches on this broker's disks.", labels: ["topic"])
    static let topicSegments = MetricFamily(
        "martlet_topic_segments", .gauge, "Segments of the topic's logs on this broker.", labels: ["topic"])
    static let topicPartitions = MetricFamily(
        "martlet_topic_partitions", .gauge, "Partitions of the topic that have a replica on this broker.", labels: ["topic"])

    // MARK: Partitions

    static let partitions = MetricFamily(
        "martlet_partitions", .gauge,
        "Replicas on this broker, by what they are: leader, follower or offline.",
        labels: ["role"])
    static let underReplicated = MetricFamily(
        "martlet_under_replicated_partitions", .gauge, "Partitions led by this broker of which some replica is not in sync.")
    static let waitingAppends = MetricFamily("martlet_waiting_appends", .gauge, "Appends that wait for their acknowledgement.")
    static let logStart = MetricFamily(
        "martlet_partition_log_start_offset", .gauge, "The first offset that can be read.", labels: ["topic", "partition"])
    static let logEnd = MetricFamily(
        "martlet_partition_log_end_offset", .gauge, "The offset of the next record.", labels: ["topic", "partition"])
    static let highWatermark = MetricFamily(
        "martlet_partition_high_watermark", .gauge,
        "The offset up to which consumers can read.",
        labels: ["topic", "partition"])
    static let partitionSize = MetricFamily(
        "martlet_partition_size_bytes", .gauge,
        "Bytes of record batches on this broker's disk.",
        labels: ["topic", "partition"])
    static let unlistedPartitions = MetricFamily(
        "martlet_partitions_unlisted", .gauge,
        "Partitions that have no samples of their own, because of martlet.metrics.labels.max.")

    // MARK: Disks and syncs

    static let syncSeconds = MetricFamily(
        "martlet_sync_duration_seconds", .histogram,
        "How long syncs of a log directory took, each for all partitions that were written to.",
        labels: ["directory"])
    static let syncRecords = MetricFamily(
        "martlet_sync_records", .histogram, "Records that became durable by one sync.", labels: ["directory"])
    static let syncedBytes = MetricFamily(
        "martlet_synced_bytes_total", .counter, "Bytes of records that were synced.", labels: ["directory"])
    static let syncedFiles = MetricFamily(
        "martlet_synced_files_total", .counter,
        "Files that were synced, by a call of their own or with the whole file system.",
        labels: ["directory"])
    static let fileSystemSyncs = MetricFamily(
        "martlet_filesystem_syncs_total", .counter,
        "Syncs that were one of the whole file system, because there were many files.",
        labels: ["directory"])
    static let syncFailures = MetricFamily(
        "martlet_sync_failures_total", .counter, "Syncs that the disk refused.", labels: ["directory"])
    static let directoryOffline = MetricFamily(
        "martlet_log_directory_offline", .gauge, "1 when the directory cannot be used any more, else 0.", labels: ["directory"])
    static let diskTotal = MetricFamily(
        "martlet_disk_size_bytes", .gauge, "The size of the file system that the directory lies on.", labels: ["directory"])
    static let diskAvailable = MetricFamily(
        "martlet_disk_available_bytes", .gauge, "What of it can still be written.", labels: ["directory"])

    // MARK: Upkeep

    static let rolledSegments = MetricFamily(
        "martlet_log_segments_rolled_total", .counter, "Segments that were begun because one was full or old.")
    static let removedSegments = MetricFamily(
        "martlet_log_segments_removed_total", .counter,
        "Segments given up by retention: for their age (time), the size of the log (size), or because they lie below "
            + "its start (start).",
        labels: ["reason"])
    static let removedBytes = MetricFamily(
        "martlet_log_removed_bytes_total", .counter, "Bytes of the segments that retention gave up.")
    static let recoveredLogs = MetricFamily(
        "martlet_recovered_logs_total", .counter, "Logs that were scanned because they had not been closed.")
    static let recoveredBytes = MetricFamily(
        "martlet_recovered_bytes_total", .counter, "Bytes of segments that were scanned for that.")
    static let putAsideBytes = MetricFamily(
        "martlet_recovery_put_aside_bytes_total", .counter,
        "Bytes that were cut from the end of logs, and put aside in martlet.cut.dir.")

    // MARK: Compaction

    static let compactions = MetricFamily(
        "martlet_compactions_total", .counter, "Compactions of a partition that came to their end.")
    static let compactionReadBytes = MetricFamily(
        "martlet_compaction_read_bytes_total", .counter,
        "Bytes of batches that were read for it; what is compacted is read once, and what was not yet, twice.")
    static let compactionWrittenBytes = MetricFamily(
        "martlet_compaction_written_bytes_total", .counter, "Bytes of batches that were written for it.")
    static let compactionSavedBytes = MetricFamily(
        "martlet_compaction_saved_bytes_total", .counter, "By how much the segments became smaller.")
    static let compactionDroppedRecords = MetricFamily(
        "martlet_compaction_dropped_records_total", .counter,
        "Records that were dropped: superseded, aborted, or deleted for long enough.")
    static let uncleanablePartitions = MetricFamily(
        "martlet_uncleanable_partitions", .gauge,
        "Partitions that are not compacted any more, because their files cannot be read.")
    static let maxDirtyRatio = MetricFamily(
        "martlet_max_dirty_ratio", .gauge,
        "The largest share of a partition that waits to be compacted, as min.cleanable.dirty.ratio reckons it.")
    static let compactedUpTo = MetricFamily(
        "martlet_partition_compacted_offset", .gauge, "The first offset that no compaction has looked at.",
        labels: ["topic", "partition"])
    static let cleanBytes = MetricFamily(
        "martlet_partition_clean_bytes", .gauge, "Bytes of the segments before it.", labels: ["topic", "partition"])
    static let dirtyBytes = MetricFamily(
        "martlet_partition_dirty_bytes", .gauge, "Bytes of the segments from it on that may be compacted.",
        labels: ["topic", "partition"])
    static let partitionCompactions = MetricFamily(
        "martlet_partition_compactions_total", .counter, "Compactions of the partition.", labels: ["topic", "partition"])
    static let partitionSavedBytes = MetricFamily(
        "martlet_partition_compaction_saved_bytes_total", .counter, "By how much they made its segments smaller.",
        labels: ["topic", "partition"])
    static let lastCompaction = MetricFamily(
        "martlet_partition_last_compaction_timestamp_seconds", .gauge,
        "When the last one ended, in seconds since 1970; no sample before the first.", labels: ["topic", "partition"])
    static let uncleanable = MetricFamily(
        "martlet_partition_uncleanable", .gauge, "1 where its files cannot be read by a compaction, else 0.",
        labels: ["topic", "partition"])

    // MARK: The keeper

    static let keeperZxid = MetricFamily(
        "martlet_keeper_zxid", .gauge, "The number of the last transaction: the epoch times 2^32, and a count.")
    static let keeperWriteSeconds = MetricFamily(
        "martlet_keeper_write_duration_seconds", .histogram, "How long groups of transactions took to be written and synced.")
    static let keeperWaiting = MetricFamily(
        "martlet_keeper_waiting_transactions", .gauge, "Transactions that are not durable yet.")
    static let keeperSessions = MetricFamily("martlet_keeper_sessions", .gauge, "Open sessions.")
    static let keeperWatches = MetricFamily("martlet_keeper_watches", .gauge, "Watches that are set.")
    static let keeperNodes = MetricFamily("martlet_keeper_nodes", .gauge, "Nodes of the tree.")
    static let keeperBytes = MetricFamily("martlet_keeper_tree_bytes", .gauge, "About how much memory the tree takes.")

    // MARK: Transactions

    static let transactionMemory = MetricFamily(
        "martlet_transaction_memory_bytes", .gauge, "About how much memory the transactional ids take.")
    static let transactions = MetricFamily(
        "martlet_transactional_ids", .gauge, "Transactional ids that this broker coordinates, by the state of their transaction.",
        labels: ["state"])
    static let endedTransactions = MetricFamily(
        "martlet_transactions_ended_total", .counter, "Transactions that have ended in all their partitions.", labels: ["result"])
    static let timedOutTransactions = MetricFamily(
        "martlet_transactions_timed_out_total", .counter,
        "Transactions that were aborted because they were open for too long.")

    // MARK: Groups

    static let groupMemory = MetricFamily("martlet_group_memory_bytes", .gauge, "About how much memory the groups take.")
    static let groups = MetricFamily(
        "martlet_groups", .gauge, "Groups that this broker coordinates, by their state.", labels: ["state"])
    static let groupMembers = MetricFamily("martlet_group_members", .gauge, "Members of a group.", labels: ["group"])
    static let groupOffset = MetricFamily(
        "martlet_group_committed_offset", .gauge,
        "The offset that the group has committed.",
        labels: ["group", "topic", "partition"])
    static let groupLagRecords = MetricFamily(
        "martlet_group_lag_records", .gauge,
        "Records that could be read and are not committed: up to the high watermark, from the committed offset or the "
            + "log's start.",
        labels: ["group", "topic", "partition"])
    static let groupLagSeconds = MetricFamily(
        "martlet_group_lag_seconds", .gauge,
        "How long ago the oldest of those records was written, by its own timestamp; 0 when there is none, no sample "
            + "when it has no timestamp.",
        labels: ["group", "topic", "partition"])
    static let unlistedGroupPartitions = MetricFamily(
        "martlet_group_partitions_unlisted", .gauge,
        "Partitions of groups without samples of their own, because of martlet.metrics.labels.max: those that are the "
            + "least behind.")

    // MARK: The reference

    /// docs/metrics.md.
    package static var page: String {
        var text = """
            # Metrics

            A broker tells how it is on `martlet.metrics.listener`, `127.0.0.1:9644` unless it is set:

                curl http://127.0.0.1:9644/metrics         for Prometheus, in its text format
                curl http://127.0.0.1:9644/health/live     200 as long as the process answers at all
                curl http://127.0.0.1:9644/health/ready    200 when clients are served, else 503 and why not

            ```yaml
            scrape_configs:
              - job_name: martlet
                static_configs:
                  - targets: [127.0.0.1:9644]
            ```

            Where the default port is taken (a second broker on one machine), the broker says so at its start and goes on
            without; a listener that was asked for and cannot be had stops the start. An empty one tells nothing. There is no
            password: whoever reaches the port reads names of topics and groups, so leave it on an address of your own.

            What has a `topic`, `partition` or `group` label is bounded by `martlet.metrics.labels.max` (1000): the topics with
            the most traffic have samples of their own, all others are summed under the topic `(other)`, which no topic can be
            called; of their partitions so many are listed; of the partitions of groups those that are the furthest behind.
            Counters begin at 0 with the process.

            Histograms have bounds of powers of two: durations from 16 µs to 34 s, sizes from 256 bytes to 64 MiB, numbers of
            records from 1 to 65,536.


            """
        for section in sections {
            text += "## \(section.title)\n\n| metric | kind | labels | |\n|---|---|---|---|\n"
            for family in section.families {
                let labels = family.labels.map { "`\($0)`" }.joined(separator: ", ")
                text += "| `\(family.name)` | \(family.kind.rawValue) | \(labels) | \(family.help) |\n"
            }
            text += "\n"
        }
        text.removeLast()
        return text
    }
}
