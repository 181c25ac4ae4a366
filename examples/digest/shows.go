package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/closeouthq/closeout/session"
	"github.com/closeouthq/closeout/workflows"
)

// Shows has the rooms of each show, without the show's name in front.
type Shows map[string][]string

// parseShows parses show=room,room, several separated by semicolons.
func parseShows(s string) (Shows, error) {
	shows := Shows{}
	var faults []error
	for entry := range strings.SplitSeq(s, ";") {
		entry = strings.TrimSpace(entry)
		show, list, _ := strings.Cut(entry, "=")
		rooms := strings.Split(list, ",")
		if show == "" || strings.ContainsAny(entry, "/ \n") || slices.Contains(rooms, "") || shows[show] != nil {
			faults = append(faults, fmt.Errorf("SHOWS: found %q, want each show once as in launch=main,backstage", entry))
		}
		shows[show] = rooms
	}
	return shows, errors.Join(faults...)
}

// of returns the show of a room and all rooms of that show, or neither.
func (s Shows) of(roomID string) (show string, rooms []string) {
	show, room, _ := strings.Cut(roomID, "/")
	if !slices.Contains(s[show], room) {
		return "", nil
	}
	for _, room := range s[show] {
		rooms = append(rooms, show+"/"+room)
	}
	return show, rooms
}

// route returns CloseShowRoom for the rooms of a show.
func (s *Steps) route(session session.Session) workflows.Workflow {
	if show, _ := s.Shows.of(session.RoomID); show != "" {
		return CloseShowRoom
	}
	return nil // RoomClose
}
