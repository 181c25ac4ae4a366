package collect

import "time"

// SetWriteTimeout bounds transactions. It is to be called before the relay runs.
func (c *Collector) SetWriteTimeout(d time.Duration) { c.writeTimeout = d }
