internal import MartletBasics

/// Where the settings that count now are found, from any loop: settings that are dynamic are altered while the broker runs.
package final class RunningConfig: @unchecked Sendable {
    private let lock = Lock()
    // guarded by the lock:
    private var config: BrokerConfig

    package init(_ config: BrokerConfig) { self.config = config }

    package var current: BrokerConfig {
        get { lock.withLock { config } }
        set { lock.withLock { config = newValue } }
    }
}
