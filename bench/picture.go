package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Measures of the picture, in pixels.
const (
	rowHeight  = 22
	labelWidth = 360
	barWidth   = 400
	valueWidth = 180
	topMargin  = 34
)

// drawTargets shows each figure against its target as a bar, on a logarithmic
// scale: a bar that reaches past the line has reached its target.
func drawTargets(targets []target) string {
	const decades = 2.0 // from a tenth to ten times the target
	x := func(reach float64) float64 {
		at := (math.Log10(max(reach, 1e-9)) + decades/2) / decades
		return labelWidth + barWidth*min(1, max(0, at))
	}
	var rows []target
	for _, t := range targets {
		if t.known {
			rows = append(rows, t)
		}
	}
	height := topMargin + rowHeight*len(rows) + 10
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		labelWidth+barWidth+valueWidth, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	for _, mark := range []struct {
		reach float64
		text  string
	}{{0.1, "a tenth"}, {0.5, "half"}, {1, "target"}, {2, "twice"}, {10, "ten times"}} {
		color := "#ddd"
		if mark.reach == 1 {
			color = "#333"
		}
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`, x(mark.reach), topMargin-6, x(mark.reach), height-8, color)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#555">%s</text>`+"\n", x(mark.reach), topMargin-12, mark.text)
	}
	for i, t := range rows {
		y := topMargin + i*rowHeight
		color := "#4c956c"
		if !t.met() {
			color = "#c8553d"
		}
		reach := t.reach()
		if t.met() {
			reach = max(reach, 1.02) // a bar that ends on the line reads as neither
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, labelWidth-8, y+14, html.EscapeString(t.what))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y+3, x(reach)-labelWidth, rowHeight-8, color)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s (%s)</text>`+"\n", labelWidth+barWidth+8, y+14, html.EscapeString(t.gets()), html.EscapeString(t.wants()))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
