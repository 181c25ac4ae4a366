package telemetry

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// instruments makes the product's own metrics.
type instruments struct {
	metric.Meter
	faults []error
}

func (m *Metrics) instruments() *instruments {
	return &instruments{Meter: m.provider.Meter("closeout")}
}

// fault is what went wrong in all that was made.
func (i *instruments) fault() error {
	if err := errors.Join(i.faults...); err != nil {
		return fmt.Errorf("make metrics: %w", err)
	}
	return nil
}

func (i *instruments) counter(name, description string, options ...metric.Int64CounterOption) metric.Int64Counter {
	c, err := i.Int64Counter(name, append(options, metric.WithDescription(description))...)
	i.faults = append(i.faults, err)
	return c
}

func (i *instruments) seconds(name, description string, options ...metric.Float64HistogramOption) metric.Float64Histogram {
	h, err := i.Float64Histogram(name, append(options, metric.WithDescription(description), metric.WithUnit("s"))...)
	i.faults = append(i.faults, err)
	return h
}

func (i *instruments) gauge(name, description string) metric.Int64ObservableGauge {
	g, err := i.Int64ObservableGauge(name, metric.WithDescription(description))
	i.faults = append(i.faults, err)
	return g
}

func (i *instruments) bytes(name, description string) metric.Int64ObservableGauge {
	g, err := i.Int64ObservableGauge(name, metric.WithDescription(description), metric.WithUnit("By"))
	i.faults = append(i.faults, err)
	return g
}

func (i *instruments) age(name, description string) metric.Float64ObservableGauge {
	g, err := i.Float64ObservableGauge(name, metric.WithDescription(description), metric.WithUnit("s"))
	i.faults = append(i.faults, err)
	return g
}

// observe has the instruments told whenever the metrics are read. What can't be
// told is left out: the other metrics are as good as ever.
func (i *instruments) observe(tell func(context.Context, metric.Observer), told ...metric.Observable) {
	_, err := i.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		tell(ctx, o)
		return nil
	}, told...)
	i.faults = append(i.faults, err)
}

func inState(state string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("state", state))
}
