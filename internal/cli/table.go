package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/closeouthq/closeout/internal/printable"
	"github.com/closeouthq/closeout/internal/progress"
)

// terminalWidth is the width of a table on a terminal.
const terminalWidth = 80

// table prints rows in columns, each cell in one line. On a terminal, columns that don't fit go to a second line.
type table struct {
	out  io.Writer
	max  int // 0 for any width
	rows [][]string
}

// newTable returns a table with these headings, the most important first.
func newTable(out io.Writer, headings ...any) *table {
	t := &table{out: out}
	if progress.IsTerminal(out) {
		t.max = terminalWidth
	}
	t.row(headings...)
	return t
}

func (t *table) row(cells ...any) {
	line := make([]string, len(cells))
	for i, cell := range cells {
		line[i] = printable.Line(fmt.Sprint(cell))
	}
	t.rows = append(t.rows, line)
}

func (t *table) print() error {
	const gap, indent = 2, 4
	var widths []int // of the columns that fit
	for i, total := 0, 0; i < len(t.rows[0]); i++ {
		widest := 0
		for _, row := range t.rows {
			widest = max(widest, utf8.RuneCountInString(row[i]))
		}
		if total += widest; t.max > 0 && i > 0 && total > t.max {
			break
		}
		widths, total = append(widths, widest), total+gap
	}
	var b strings.Builder
	line := func(text string) { b.WriteString(strings.TrimRight(text, " ") + "\n") }
	for n, row := range t.rows {
		text := ""
		for i, width := range widths {
			text += row[i] + strings.Repeat(" ", width-utf8.RuneCountInString(row[i])+gap)
		}
		line(text)
		if text = ""; n > 0 {
			for i := len(widths); i < len(row); i++ {
				if cell := strings.ToLower(t.rows[0][i]) + " " + row[i]; row[i] != "" {
					if text != "" && utf8.RuneCountInString(text+cell)+indent+gap > t.max {
						line(text)
						text = ""
					}
					text += strings.Repeat(" ", map[bool]int{true: indent, false: gap}[text == ""]) + cell
				}
			}
		}
		if text != "" {
			line(text)
		}
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}
