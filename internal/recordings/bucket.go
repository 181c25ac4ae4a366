package recordings

import (
	"slices"
	"strconv"
	"strings"

	"github.com/closeouthq/closeout/zego"
)

// looseFile adds an object without a callback.
func (p *planner) looseFile(o Object, name string) {
	parts, _, _ := FileName(name)
	if p.take(File{Object: o, Name: name, TaskID: parts.TaskID}) {
		p.loose = append(p.loose, o)
	}
}

// objects adds the objects without a callback.
func (p *planner) objects() {
	for _, o := range p.list(p.Folder) {
		below := strings.TrimPrefix(o.Key, p.Folder)
		if name, _, _ := FileName(below); !p.others[name.TaskID] {
			p.looseFile(o, below)
		}
	}
	prefix := p.Place.Prefix
	if strings.HasPrefix(prefix, p.Folder) {
		return
	}
	for _, o := range p.list(prefix) {
		below := strings.TrimPrefix(o.Key, prefix)
		if p.Place.OfSession {
			p.looseFile(o, below)
			continue
		}
		name, inside, _ := FileName(below)
		if p.known[name.TaskID] {
			if p.open[name.TaskID] {
				p.looseFile(o, below)
			}
			continue
		}
		of, candidates := MatchFile(p.Session, p.Lives, name.Begin, prefix+inside)
		if of == Another {
			continue
		}
		if others := p.rooms(name); len(others) > 0 {
			of, candidates = Ambiguous, append(append([]uint64{p.Session.RoomSessionID}, candidates...), others...)
		}
		if of == Ambiguous {
			slices.Sort(candidates)
			p.stick("%s may be of session %s; move it to the folder <appid>/<room_session_id>/ of one", o.Key, either(slices.Compact(candidates)))
			continue
		}
		p.looseFile(o, below)
	}
}

// Keep reports whether an object listed below prefix may belong to the session. The facts do
// not need the others.
func (f Facts) Keep(prefix, key string) bool {
	switch {
	case strings.HasSuffix(key, "/"): // as object stores show folders
		return false
	case prefix == f.Folder:
		return true
	case prefix != f.Place.Prefix || f.Place.OfSession:
		return f.Owned.Has(key) && (prefix != f.Place.Prefix || !strings.HasPrefix(key, f.Folder))
	}
	name, inside, ok := FileName(strings.TrimPrefix(key, prefix))
	return ok && name.OfRoom(f.Session.RoomID) && f.Owned.Has(key) && !strings.HasPrefix(key, f.Folder) && !f.archives(prefix+inside)
}

// FileName parses the key of a recording into its name and folder. A room's name may contain
// slashes, too.
func FileName(key string) (name zego.FileName, folder string, ok bool) {
	for at := 0; ; {
		if name, ok = zego.ParseFileName(key[at:]); ok {
			return name, key[:at], true
		}
		next := strings.IndexByte(key[at:], '/') + 1
		if next == 0 {
			return zego.FileName{}, "", false
		}
		at += next
	}
}

// archives reports whether a folder belongs to an archive in the same bucket.
func (f Facts) archives(folder string) bool {
	parts := strings.Split(folder, "/")
	for i := 2; i < len(parts); i++ {
		if _, err := strconv.ParseUint(parts[i-1], 10, 64); err == nil && parts[i] == "recordings" && parts[i-2] == strconv.FormatUint(uint64(f.Session.AppID), 10) {
			return true
		}
	}
	return false
}

// rooms returns the sessions of other rooms that a file may belong to, judging by its name.
func (p *planner) rooms(name zego.FileName) (sessions []uint64) {
	if p.Place.OfRoom {
		return nil
	}
	for i, c := range name.Middle {
		room := Room{name.Middle[:i], name.Begin}
		if c != '_' || i == 0 || room.ID == p.Session.RoomID {
			continue
		}
		found, ok := p.Facts.Rooms[room]
		if !ok && !slices.Contains(p.Plan.Rooms, room) {
			p.Plan.Rooms = append(p.Plan.Rooms, room)
		}
		sessions = append(sessions, found...)
	}
	return sessions
}
