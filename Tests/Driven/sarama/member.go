package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/Shopify/sarama"
)

// member is one member of a consumer group, in a process of its own that can be killed. It tells what happens to it as group_member.py does. This client
// commits by itself what was marked, and tells nobody; so nothing is told of commits.
type member struct {
	topic string
	lock  sync.Mutex
}

func (m *member) tell(format string, values ...interface{}) {
	m.lock.Lock()
	defer m.lock.Unlock()
	fmt.Fprintf(os.Stdout, "%d %s\n", time.Now().UnixNano(), fmt.Sprintf(format, values...))
}

func (m *member) tellOf(what string, session sarama.ConsumerGroupSession) {
	for _, partition := range session.Claims()[m.topic] {
		what += fmt.Sprintf(" %d", partition)
	}
	m.tell("%s", what)
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.tellOf("assigned", session)
	return nil
}

func (m *member) Cleanup(session sarama.ConsumerGroupSession) error {
	m.tellOf("revoked", session)
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.tell("got %d %d %s", message.Partition, message.Offset, message.Value)
		session.MarkMessage(message, "")
	}
	return nil
}

// consumeAsMember runs a member until SIGTERM: ADDRESS GROUP TOPIC STRATEGY.
func consumeAsMember(words []string) int {
	address, group, topic, strategy := words[0], words[1], words[2], words[3]
	c := sarama.NewConfig()
	c.Version = sarama.V2_2_0_0
	c.ClientID = "sarama-member"
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.CommitInterval = 100 * time.Millisecond
	// without a retention this release commits as Kafka 0.8.2 did, which Kafka 4 takes no more
	c.Consumer.Offsets.Retention = 24 * time.Hour
	c.Consumer.Group.Session.Timeout = 2 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
	c.Consumer.Group.Rebalance.Timeout = 5 * time.Second
	c.Consumer.Group.Rebalance.Retry.Backoff = 100 * time.Millisecond
	c.Consumer.MaxWaitTime = 100 * time.Millisecond
	c.Metadata.Retry.Backoff = 100 * time.Millisecond
	c.Metadata.Retry.Max = 100
	c.Consumer.Group.Rebalance.Strategy = sarama.BalanceStrategyRange
	if strategy == "roundrobin" {
		c.Consumer.Group.Rebalance.Strategy = sarama.BalanceStrategyRoundRobin
	}
	m := &member{topic: topic}
	joined, err := sarama.NewConsumerGroup([]string{address}, group, c)
	if err != nil {
		m.tell("error %v", err)
		return 1
	}
	ctx, end := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		end()
	}()
	go func() {
		for err := range joined.Errors() {
			m.tell("error %v", err)
		}
	}()
	for ctx.Err() == nil {
		if err := joined.Consume(ctx, []string{topic}, m); err != nil {
			m.tell("error %v", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	if err := joined.Close(); err != nil {
		m.tell("error %v", err)
		return 1
	}
	m.tell("left")
	return 0
}
