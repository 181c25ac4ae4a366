package serverapi

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/closeouthq/closeout/zego"
)

// The maximum numbers of rooms and of users in one call, and of users in one list.
const (
	MaxRooms = 10
	MaxUsers = 10
	MaxList  = 200
)

// The documented limits as pauses between two calls, a tenth longer than documented,
// because calls don't arrive as evenly as they are sent.
var (
	tenASecond = []limit{{"", 110 * time.Millisecond}}
	listLimits = func(room string) []limit { // 200 a second, and one a second for each room
		return []limit{{"room " + room, 1100 * time.Millisecond}, {"", 5500 * time.Microsecond}}
	}
)

// userNumLimit returns the limit of DescribeUserNum.
func (c *Client) userNumLimit(appID uint32) []limit {
	if slices.Contains(c.Test, appID) {
		return []limit{{"", 1100 * time.Millisecond}}
	}
	return tenASecond
}

// RoomUsers is the number of users in a room.
type RoomUsers struct {
	// Users includes Admins. It is 0 for a room that doesn't exist.
	Users int
	// Admins record or moderate. They are not participants.
	Admins int
}

// Participants returns the number of users without the admins.
func (r RoomUsers) Participants() int { return r.Users - r.Admins }

// User is a user of a room.
type User struct {
	// UserID is the user's name, user_account in callbacks.
	UserID string
	// InRoom reports whether the user is in the room.
	InRoom bool
	// LoginTime is when the user entered, by ZEGO's clock, to the millisecond and in UTC.
	// It is zero in a list.
	LoginTime time.Time
	// Role is [zego.RoleService] for an admin. It is meaningful only in ZEGO's LiveRoom
	// service.
	Role zego.Code
}

// DescribeUserNum returns the numbers of users in up to [MaxRooms] rooms. If the answer
// lacks a room, DescribeUserNum returns an error together with the other rooms, because a
// room that is missing in the answer isn't empty.
func (c *Client) DescribeUserNum(ctx context.Context, appID uint32, rooms []string) (map[string]RoomUsers, error) {
	if len(rooms) == 0 || len(rooms) > MaxRooms {
		return nil, fmt.Errorf("DescribeUserNum: found %d rooms, want 1 to %d", len(rooms), MaxRooms)
	}
	var data struct {
		UserCountList []struct {
			RoomID         string `json:"RoomId"`
			UserCount      *int
			AdminUserCount int
		}
	}
	if err := c.call(ctx, appID, request{action: "DescribeUserNum", query: url.Values{"RoomId[]": rooms}, limits: c.userNumLimit(appID)}, &data); err != nil {
		return nil, err
	}
	counts := make(map[string]RoomUsers, len(rooms))
	var fault error
	for _, r := range data.UserCountList {
		switch {
		case r.UserCount == nil || *r.UserCount < r.AdminUserCount || r.AdminUserCount < 0:
			fault = fmt.Errorf("DescribeUserNum of app %d: room %q has no UserCount, or an impossible one", appID, r.RoomID)
		case slices.Contains(rooms, r.RoomID):
			counts[r.RoomID] = RoomUsers{*r.UserCount, r.AdminUserCount}
		}
	}
	for _, room := range rooms {
		if _, ok := counts[room]; !ok && fault == nil {
			fault = fmt.Errorf("DescribeUserNum of app %d: the answer says nothing of room %q", appID, room)
		}
	}
	if len(counts) == 0 {
		return nil, fault
	}
	return counts, fault
}

// DescribeUsers returns the states of up to [MaxUsers] users of a room. If the room
// doesn't exist, the error is an [*Error] with NoRoom.
func (c *Client) DescribeUsers(ctx context.Context, appID uint32, room string, users []string) ([]User, error) {
	if len(users) == 0 || len(users) > MaxUsers {
		return nil, fmt.Errorf("DescribeUsers: found %d users, want 1 to %d", len(users), MaxUsers)
	}
	var data struct {
		UserStatusList []struct {
			UserID    string `json:"UserId"`
			Status    int
			LoginTime int64
			UserRole  zego.Code
		}
	}
	query := url.Values{"RoomId": {room}, "UserId[]": users}
	if err := c.call(ctx, appID, request{action: "DescribeUsers", query: query, limits: tenASecond}, &data); err != nil {
		return nil, err
	}
	var all []User
	for _, u := range data.UserStatusList {
		user := User{UserID: u.UserID, InRoom: u.Status == 1, Role: u.UserRole}
		if user.InRoom {
			if u.LoginTime <= 0 {
				return nil, fmt.Errorf("DescribeUsers of app %d: a user is in room %q without a LoginTime", appID, room)
			}
			user.LoginTime = time.UnixMilli(u.LoginTime).UTC()
		}
		all = append(all, user)
	}
	return all, nil
}

// DescribeUserList returns up to limit users of a room, at most [MaxList], longest stays
// first. It returns none if the room doesn't exist. Pass an empty marker for the first
// page, and then the next of the previous page. An empty next ends the list.
func (c *Client) DescribeUserList(ctx context.Context, appID uint32, room string, limit int, marker string) (users []User, next string, err error) {
	if limit < 1 || limit > MaxList {
		return nil, "", fmt.Errorf("DescribeUserList: found limit %d, want 1 to %d", limit, MaxList)
	}
	var data struct {
		Marker   string
		UserList []struct {
			UserID   string `json:"UserId"`
			UserRole zego.Code
		}
	}
	query := url.Values{"RoomId": {room}, "Mode": {"0"}, "Limit": {strconv.Itoa(limit)}}
	if marker != "" {
		query.Set("Marker", marker)
	}
	if err := c.call(ctx, appID, request{action: "DescribeUserList", query: query, limits: listLimits(room)}, &data); err != nil {
		return nil, "", err
	}
	for _, u := range data.UserList {
		users = append(users, User{UserID: u.UserID, InRoom: true, Role: u.UserRole})
	}
	return users, data.Marker, nil
}
